"""A fitted pipeline as ONNX bytes: numbers in one float tensor, categories in one string tensor.

Opset 17 and ai.onnx.ml 3, so that runtimes of several years read it. The calibration is not part of the
graph.
"""

from __future__ import annotations

import copy
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.errors import StateError
from ml_assets.learning.frames import FeatureNames

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

OPSET = {"": 17, "ai.onnx.ml": 3}
NUMERIC_INPUT, CATEGORICAL_INPUT = "numeric", "categorical"


class ExportMismatchError(StateError):
    """The exported model does not give the pipeline's probabilities; it must not be registered."""


def to_onnx(pipeline: Pipeline, names: FeatureNames) -> bytes:
    """Return the pipeline as a serialized ONNX model with the outputs `label` and `probabilities` (n, 2).

    The pipeline begins with a ColumnTransformer over a `model_frame`. A LightGBM model must have been made
    exact by `round_thresholds` first.
    """
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    _register_converters()
    inputs = []
    if names.numeric:
        inputs.append((NUMERIC_INPUT, FloatTensorType([None, len(names.numeric)])))
    if names.categorical:
        inputs.append((CATEGORICAL_INPUT, StringTensorType([None, len(names.categorical)])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations between the converters, onnx and numpy
        model = convert_sklearn(
            _by_position(pipeline, names),
            initial_types=inputs,
            target_opset=OPSET,
            options={id(pipeline.steps[-1][1]): {"zipmap": False}},
        )
    _sum_trees_in_double(model)
    return bytes(model.SerializeToString())


def _sum_trees_in_double(model: Any) -> None:
    """Let tree ensembles add their leaves in double: in float, 300 trees are off by about 5e-7."""
    from onnx import TensorProto, helper

    nodes = []
    for node in model.graph.node:
        if node.op_type == "TreeEnsembleClassifier":
            for name in ("nodes_values", "class_weights", "base_values"):
                for attribute in [a for a in node.attribute if a.name == name]:
                    tensor = helper.make_tensor(
                        f"{name}_as_tensor",
                        TensorProto.DOUBLE,
                        [len(attribute.floats)],
                        list(attribute.floats),
                    )
                    node.attribute.remove(attribute)
                    node.attribute.append(helper.make_attribute(f"{name}_as_tensor", tensor))
            double = f"{node.input[0]}_double"
            nodes.append(helper.make_node("Cast", [node.input[0]], [double], to=TensorProto.DOUBLE))
            node.input[0] = double
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for domain in model.opset_import:  # skl2onnx writes the oldest that it needs
        domain.version = OPSET[domain.domain]


def round_thresholds(pipeline: Pipeline) -> None:
    """Make fitted trees compute in place what their export computes; leave other models alone.

    ONNX keeps thresholds as float32. For a float32 x, `x <= t` equals `x <= t'` where t' is the greatest
    float32 not above t; the nearest float32 may lie above, which sends an x that equals it the other way.
    """
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = pipeline.steps[-1][1]
    if isinstance(model, LGBMClassifier):
        _round_lightgbm(model)
    elif isinstance(model, HistGradientBoostingClassifier):
        for (tree,) in model._predictors:
            tree.nodes["num_threshold"] = _floor_float32(tree.nodes["num_threshold"])


def _round_lightgbm(model: Any) -> None:
    from lightgbm import Booster

    lines = []
    for line in model.booster_.model_to_string().split("\n"):
        key, _, values = line.partition("=")
        if key == "tree_sizes":
            continue  # lengths of the text before this edit; without them the trees are read one by one
        if key == "threshold":
            thresholds = _floor_float32(np.array(values.split(), dtype=np.float64))
            line = "threshold=" + " ".join(repr(float(t)) for t in thresholds)
        lines.append(line)
    model._Booster = Booster(model_str="\n".join(lines))


def _floor_float32(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the greatest float32 not above each value, as float64."""
    limit = float(np.finfo(np.float32).max)
    near = np.clip(values, -limit, limit).astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float64)


def _by_position(pipeline: Pipeline, names: FeatureNames) -> Pipeline:
    """Return the pipeline with columns chosen by position, as they lie in the two tensors."""
    pipeline = copy.copy(pipeline)
    pipeline.steps = list(pipeline.steps)
    label, columns = pipeline.steps[0]
    columns = copy.copy(columns)
    at = {name: i for i, name in enumerate(names.all)}
    columns.transformers_ = [(n, t, [at[c] for c in used]) for n, t, used in columns.transformers_ if t != "drop"]
    pipeline.steps[0] = (label, columns)
    return pipeline


@cache
def _register_converters() -> None:
    """Teach skl2onnx LightGBM (from onnxmltools) and the estimators of this package."""
    from lightgbm import LGBMClassifier
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
    from skl2onnx.operator_converters.linear_classifier import convert_sklearn_linear_classifier

    from ml_assets.learning.estimators import AsinhScaler, EmptyToZero, IncreasingLogistic

    options = {
        "zipmap": [True, False, "columns"],
        "nocl": [True, False],
        "output_class_labels": [False, True],
    }
    update_registered_converter(
        LGBMClassifier,
        "LightGbmLGBMClassifier",
        calculate_linear_classifier_output_shapes,
        convert_lightgbm,
        options={"zipmap": [True, False, "columns"], "nocl": [True, False]},
    )
    update_registered_converter(
        IncreasingLogistic,
        "IncreasingLogistic",
        calculate_linear_classifier_output_shapes,
        convert_sklearn_linear_classifier,
        options=options | {"raw_scores": [True, False]},
    )
    update_registered_converter(AsinhScaler, "AsinhScaler", _asinh_scaler_shape, _convert_asinh_scaler)
    update_registered_converter(EmptyToZero, "EmptyToZero", _empty_to_zero_shape, _convert_empty_to_zero)


def _asinh_scaler_shape(operator: Any) -> None:
    from skl2onnx.common.data_types import FloatTensorType

    scaler = operator.raw_operator
    operator.outputs[0].type = FloatTensorType([None, len(scaler.magnitude_) + len(scaler.indicator_)])


def _convert_asinh_scaler(scope: Any, operator: Any, container: Any) -> None:
    """Write `AsinhScaler.transform` in ONNX operators."""
    from skl2onnx.algebra.onnx_ops import (
        OnnxAsinh,
        OnnxCast,
        OnnxConcat,
        OnnxDiv,
        OnnxGather,
        OnnxIsNaN,
        OnnxSub,
        OnnxWhere,
    )

    opset = container.target_opset
    scaler, x = operator.raw_operator, operator.inputs[0]

    def row(values: NDArray[np.float64]) -> NDArray[np.float32]:
        return values.astype(np.float32)[None, :]

    missing = OnnxIsNaN(x, op_version=opset)
    z = OnnxAsinh(OnnxDiv(x, row(scaler.magnitude_), op_version=opset), op_version=opset)
    z = OnnxWhere(missing, row(scaler.fill_), z, op_version=opset)
    z = OnnxDiv(OnnxSub(z, row(scaler.mean_), op_version=opset), row(scaler.scale_), op_version=opset)
    parts = [z]
    if len(scaler.indicator_):
        flags = OnnxGather(missing, scaler.indicator_.astype(np.int64), axis=1, op_version=opset)
        parts.append(OnnxCast(flags, to=1, op_version=opset))  # 1: float
    OnnxConcat(*parts, axis=1, op_version=opset, output_names=operator.outputs[:1]).add_to(scope, container)


def _empty_to_zero_shape(operator: Any) -> None:
    from skl2onnx.common.data_types import FloatTensorType

    operator.outputs[0].type = FloatTensorType([None, len(operator.raw_operator.empty_)])


def _convert_empty_to_zero(scope: Any, operator: Any, container: Any) -> None:
    """Write `EmptyToZero.transform` in ONNX operators."""
    from skl2onnx.algebra.onnx_ops import OnnxWhere

    empty = operator.raw_operator.empty_[None, :]
    zero = np.zeros((1, 1), dtype=np.float32)
    OnnxWhere(
        empty, zero, operator.inputs[0], op_version=container.target_opset, output_names=operator.outputs[:1]
    ).add_to(scope, container)

"""The ONNX file that PEER_MODEL names behind BentoML, run by an environment that has it."""

import os

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1)
class Peer:
    """Scores rows of ready features, with as many threads of ONNX Runtime as ours: one."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            os.environ["PEER_MODEL"], options, providers=["CPUExecutionProvider"]
        )

    @bentoml.api
    def score(self, numeric: list[list[float | None]], categorical: list[list[str]]) -> list[list[float]]:
        """Return the model's first output that is numbers, as lists."""
        given = {"numeric": np.array(numeric, np.float32), "categorical": np.array(categorical, object)}
        outputs = self.session.run(None, given)
        return next(one for one in outputs if getattr(one, "dtype", None) == np.float32).tolist()

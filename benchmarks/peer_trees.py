"""Tree ensembles by other predictors, on the files of a folder, run by an environment of its own.

Each line that it is sent names a predictor; it answers with the processor seconds and the largest difference from the
pipeline's probabilities.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time

import lightgbm
import numpy as np
import treelite

folder = Path(sys.argv[1])
matrix, expected = np.load(folder / "matrix.npy"), np.load(folder / "expected.npy")
booster = lightgbm.Booster(model_file=folder / "model.txt")
trees = treelite.frontend.from_lightgbm(booster)
single = matrix.astype(np.float32)
predictors: dict[str, Callable[[], np.ndarray]] = {
    "lightgbm": lambda: booster.predict(matrix, num_threads=1),
    "treelite": lambda: treelite.gtil.predict(trees, single, nthread=1).reshape(len(single)),
}
for line in sys.stdin:
    started = process_time()
    given = predictors[line.strip()]()
    print(process_time() - started, np.abs(given - expected).max(), flush=True)  # noqa: T201 - this is what it is for

"""Use cases: one folder a model, found by being there.

A folder with a `usecase.py` that defines `USE_CASE` is a use case; nothing else has to be edited. Code that is
about more than one use case does not belong here.
"""

import importlib
import pkgutil
from collections.abc import Iterable

from ml_assets.spec import UseCase

DEFAULT_PACKAGES = ("ml_assets.usecases",)


def discover(packages: Iterable[str] = DEFAULT_PACKAGES) -> tuple[UseCase, ...]:
    """Return the use cases below the packages, by name.

    Raises:
        TypeError: a `usecase.py` does not define `USE_CASE`.
        ValueError: two use cases have the same name.
    """
    found: dict[str, UseCase] = {}
    for package in packages:
        module = importlib.import_module(package)
        for info in pkgutil.iter_modules(module.__path__, f"{package}."):
            if not info.ispkg:
                continue
            usecase = getattr(importlib.import_module(f"{info.name}.usecase"), "USE_CASE", None)
            if not isinstance(usecase, UseCase):
                raise TypeError(f"{info.name}.usecase must define USE_CASE, a ml_assets.spec.UseCase")
            if usecase.name in found:
                raise ValueError(f"two use cases are named {usecase.name!r}; rename the one in {info.name}")
            found[usecase.name] = usecase
    return tuple(found[name] for name in sorted(found))

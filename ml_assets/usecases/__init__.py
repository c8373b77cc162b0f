"""Use cases: one folder a model, found by being there.

A folder with a `usecase.py` that defines `USE_CASE` is a use case; nothing else has to be edited. Code that is
about more than one use case does not belong here.
"""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ml_assets.errors import InputError
from ml_assets.spec import UseCase

DEFAULT_PACKAGES = ("ml_assets.usecases",)


def discover(packages: Iterable[str] = DEFAULT_PACKAGES) -> tuple[UseCase, ...]:
    """Return the use cases below the packages, by name.

    Raises:
        ModuleNotFoundError: a package is not there.
        TypeError: a `usecase.py` does not define `USE_CASE`.
        ValueError: two use cases have the same name, or a package has none.
    """
    found: dict[str, UseCase] = {}
    for module in usecase_modules(packages):
        usecase = load(module)
        if usecase.name in found:
            raise InputError(f"two use cases are named {usecase.name!r}; rename the one in {module}")
        found[usecase.name] = usecase
    return tuple(found[name] for name in sorted(found))


def usecase_modules(packages: Iterable[str] = DEFAULT_PACKAGES) -> Iterator[str]:
    """Yield the names of all modules `usecase` in the folders of the packages; they are not imported.

    Raises:
        ModuleNotFoundError: a package is not there.
        ValueError: a package has no use case.
    """
    for package in dict.fromkeys(packages):
        path = _path(package)
        folders = [info.name for info in pkgutil.iter_modules(path, f"{package}.") if info.ispkg]
        modules = [f"{name}.usecase" for name in folders if importlib.util.find_spec(f"{name}.usecase")]
        if not modules:
            itself = any((Path(folder) / "usecase.py").exists() for folder in path)
            raise InputError(
                f"the package {package} of ML_ASSETS_USECASE_PACKAGES has no use case: it should hold a folder for "
                "each, with __init__.py and usecase.py"
                + (f"; usecase.py is in {package} itself: name the package above it" if itself else "")
            )
        yield from modules


def load(module: str) -> UseCase:
    """Return the use case of a module.

    Raises:
        TypeError: it does not define `USE_CASE`.
    """
    usecase = getattr(importlib.import_module(module), "USE_CASE", None)
    if not isinstance(usecase, UseCase):
        raise TypeError(f"{module} must define USE_CASE, a ml_assets.spec.UseCase")
    return usecase


def _path(package: str) -> Sequence[str]:
    """Return the folders of a package, which may be in the folder that we are in."""
    top = package.partition(".")[0]
    here = Path.cwd()
    if importlib.util.find_spec(top) is None and (here / top).is_dir():
        sys.path.append(str(here))
        importlib.invalidate_caches()
    try:
        return list(importlib.import_module(package).__path__)
    except ModuleNotFoundError as error:
        if error.name is None or not package.startswith(error.name):
            raise
        raise ModuleNotFoundError(
            f"ML_ASSETS_USECASE_PACKAGES names {package}, and there is no such package: install it, or run the command "
            f"in the folder that holds {top}/"
        ) from None

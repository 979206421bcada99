"""Every topology by name: what there is, what parameters it takes, and the network itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from topologies import custom_source, graphml_source, mini_ndn_source
from topologies.custom_source import CustomParameters, build_custom
from topologies.errors import InputError, pick_one_of
from topologies.graphml_source import GraphmlParameters, build_graphml
from topologies.mini_ndn_source import MiniNdnParameters, build_mini_ndn
from topologies.model import Topology
from topologies.tiers import NAME as TIERS_NAME
from topologies.tiers import TiersParameters, build_tiers
from topologies.topohub_source import TopohubParameters, build_topohub, topohub_names

Parameters = TiersParameters | TopohubParameters | GraphmlParameters | MiniNdnParameters | CustomParameters

#: By the end of a file's name: the parameters that it takes, and who reads it.
FILE_SOURCES: Final[dict[str, tuple[type[Parameters], Callable[[str, Path, Any], Topology]]]] = {
    graphml_source.SUFFIX: (GraphmlParameters, build_graphml),
    mini_ndn_source.SUFFIX: (MiniNdnParameters, build_mini_ndn),
    custom_source.SUFFIX: (CustomParameters, build_custom),
}


def list_names() -> tuple[str, ...]:
    """Return the names of all known topologies."""
    return (TIERS_NAME, *topohub_names())


def parameters_type(name: str) -> type[Parameters]:
    """Return the struct of the parameters that *name* takes. Raises: InputError with the nearest names."""
    if name == TIERS_NAME:
        return TiersParameters
    if (suffix := file_suffix(name)) is not None:
        return FILE_SOURCES[suffix][0]
    if name in topohub_names():
        return TopohubParameters
    raise InputError(
        where="topology",
        problem=f"`{name}` is not a known topology",
        remedy=f"{_suggest(name)}; `hconf topo list` shows all",
    )


def file_suffix(name: str) -> str | None:
    """Return the end of *name* if it is that of a file that a network is read from, else None.

    >>> file_suffix("nets/geant.conf"), file_suffix("topozoo/Abilene")
    ('.conf', None)
    """
    suffix = Path(name).suffix.casefold()
    return suffix if suffix in FILE_SOURCES else None


def build(
    name: str, parameters: Parameters | Mapping[str, Any] | None = None, *, folder: Path | None = None
) -> Topology:
    """Return the network called *name*.

    Args:
        name: one of `list_names`, or a file.
        parameters: of the type that `parameters_type` says, or a mapping with its keys; what is left out has its
            default there.
        folder: that the name of a file is seen from; None: the working directory.

    Raises: InputError for an unknown name, a wrong parameter, or a network that cannot be.
    """
    wanted = parameters_type(name)
    if not isinstance(parameters, Struct):
        try:
            parameters = msgspec.convert(dict(parameters or {}), wanted)
        except msgspec.ValidationError as error:
            raise InputError(
                where=f"topology {name}",
                problem=str(error),
                remedy=f"its parameters are {', '.join(wanted.__struct_fields__)}",
            ) from error
    if isinstance(parameters, wanted) and (suffix := file_suffix(name)) is not None:
        return FILE_SOURCES[suffix][1](name, (folder or Path()) / name, parameters)
    match parameters:
        case TiersParameters() if wanted is TiersParameters:
            return build_tiers(parameters)
        case TopohubParameters() if wanted is TopohubParameters:
            return build_topohub(name, parameters)
    raise TypeError(f"{name} takes {wanted.__name__}, not {type(parameters).__name__}")


def _suggest(name: str) -> str:
    """Return a remedy; a bare name such as ``abilene`` is looked for in every collection."""
    known = list_names()
    same_ending = [full for full in known if full.rpartition("/")[2].casefold() == name.rpartition("/")[2].casefold()]
    if same_ending:
        return f"did you mean {' or '.join(f'`{full}`' for full in same_ending[:3])}?"
    close = pick_one_of(name, known)
    if close.startswith("did you mean"):
        return close
    return (
        "use `tiers`, a collection and a name, such as `topozoo/Abilene` or `sndlib/germany50`, or a file "
        f"({', '.join(FILE_SOURCES)})"
    )

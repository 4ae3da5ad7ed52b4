"""Make a model folder from a checkpoint."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.export.dytrack import export_dytrack
from lighttrack_ros.export.graphs import Difference
from lighttrack_ros.export.lighttrack import export_lighttrack
from lighttrack_ros.export.mixformerv2 import export_mixformerv2
from lighttrack_ros.models import (
    DyTrackHyperParameters,
    Graphs,
    LightTrackHyperParameters,
    MixFormerV2HyperParameters,
    Model,
    Provenance,
    SessionSettings,
    save_model,
    user_models,
)
from lighttrack_ros.networks import dytrack, mixformerv2
from lighttrack_ros.networks.lighttrack import MOBILE, Architecture, load_checkpoint, read_checkpoint
from lighttrack_ros.networks.transformer import PATCH

TEMPLATE_SIZE = 128
_OF_A_MODEL = ("model.yaml", "ranges.yaml", "verifier.npz", "LICENSE", "__pycache__")
SEARCH_SIZES = (256, 288)
# The search near by: docs/performance.md. The session's limits, from `lighttrack fit-session`: docs/lost.md.
_MOBILE_PARAMETERS = LightTrackHyperParameters(near_size=160, near_shift=4.3, near_score=7.0)
_MOBILE_SESSION = SessionSettings(
    uncertain=0.375, sure=0.504, lost=0.483, lost_frames=3, again=0.817, found=0.858, found_frames=3
)
_MOBILE_VERIFIER = Path(__file__).with_name("mobile_verifier.npz")


def import_checkpoint(
    checkpoint: Path, name: str, architecture: str | None, output: Path | None, source: str, licence: str
) -> Path:
    """Write a model folder, replacing one of the same name; prints the graphs' differences from PyTorch.

    Args:
        checkpoint: of LightTrack, MixFormerV2 or DyTrack; its keys tell which. See
            `networks.lighttrack.read_checkpoint` for the kinds of file.
        architecture: for LightTrack, see `networks.lighttrack.Architecture`; None: LightTrack-Mobile. The other
            trackers' checkpoints contain their architecture.
        output: parent of the new folder; None: `engines` if it exists, else the user's data directory.
        source, licence: for model.yaml.

    Raises:
        LightTrackError: a bad name or path string, a checkpoint that does not fit, or a folder that cannot be written;
            nothing is written then.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise LightTrackError(
            f"model name {name!r}: expected letters, digits, '_', '-' and '.', e.g. lighttrack_mobile"
        )
    place = output or (Path("engines") if Path("engines").is_dir() else user_models())
    target = place / name
    check_replaceable(target)
    plan = plan_of(checkpoint, architecture)
    if architecture is not None and plan.fields["tracker"] != "lighttrack":
        raise LightTrackError(
            f"{checkpoint}: a {plan.fields['tracker']} checkpoint, which says its own architecture, not"
            f" {architecture!r} (leave --architecture out)"
        )
    # Built in a scratch folder beside the target and moved last, so that a failed import leaves nothing behind.
    try:
        place.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=".import-", dir=place)
    except OSError as error:
        raise LightTrackError(f"{place}: cannot be written ({error.strerror}); --output takes another folder") from None
    with temporary as scratch:
        provenance = Provenance(source, licence, hashlib.sha256(checkpoint.read_bytes()).hexdigest())
        model = Model(folder=Path(scratch) / name, name=name, provenance=provenance, **plan.fields)
        model.folder.mkdir()
        write_graphs(plan, model)
        save_model(model)
        if plan.verifier is not None:
            shutil.copyfile(plan.verifier, model.folder / "verifier.npz")
        put_in_place(model.folder, target)
    return target


class Plan(NamedTuple):
    """The tracker-specific part of an import: entries of model.yaml, and the function that writes the graphs."""

    fields: dict[str, Any]
    export: Callable[[Model], list[Difference]]
    verifier: Path | None = None  # of the session, where these very weights have one


def plan_of(checkpoint: Path, architecture: str | None) -> Plan:
    """The plan for a checkpoint; see `import_checkpoint` for the arguments and errors."""
    tensors = read_checkpoint(checkpoint)
    if "exit_blocks" in tensors:
        plan = _dytrack
    elif any(key.startswith(("backbone.reg_tokens", "backbone.blocks.")) for key in tensors):
        plan = _mixformerv2
    else:
        return _lighttrack(checkpoint, architecture or MOBILE)
    try:
        return plan(tensors)
    except LightTrackError as error:
        raise LightTrackError(f"{checkpoint}: {error}") from error


def write_graphs(plan: Plan, model: Model) -> None:
    """Write the graphs into the model's folder; prints their differences from PyTorch."""
    for item in plan.export(model):
        print(
            f"{item.graph}, {item.output}: largest difference from PyTorch {item.largest:.2e}"
            f" (values up to {item.scale:.3g})"
        )


def check_replaceable(target: Path) -> None:
    """Refuse to replace anything but a model folder with nothing of the user's in it.

    Raises:
        LightTrackError: there is something else.
    """
    if not target.exists():
        return
    if not (target / "model.yaml").is_file():
        raise LightTrackError(f"{target}: is there already and is no model folder; choose another --name or --output")
    strange = sorted(path.name for path in target.iterdir() if path.suffix != ".onnx" and path.name not in _OF_A_MODEL)
    if strange:
        raise LightTrackError(
            f"{target}: holds {', '.join(strange[:3])}, which would be lost; move it, or choose another --name"
        )


def put_in_place(folder: Path, target: Path) -> None:
    """Move a finished model folder out of its scratch folder; an existing target moves into the scratch folder."""
    if target.exists():
        shutil.move(target, folder.parent / "replaced")
    folder.rename(target)


def _lighttrack(checkpoint: Path, architecture: str) -> Plan:
    parsed = Architecture.parse(architecture)
    network = load_checkpoint(checkpoint, parsed, TEMPLATE_SIZE)
    fields = {
        "tracker": "lighttrack",
        "architecture": architecture,
        "template_size": TEMPLATE_SIZE,
        "search_sizes": SEARCH_SIZES,
        "stride": parsed.stride,
        "hyper_parameters": _MOBILE_PARAMETERS if architecture == MOBILE else LightTrackHyperParameters(),
        "session": _MOBILE_SESSION if architecture == MOBILE else SessionSettings(),
    }
    return Plan(
        fields,
        lambda model: export_lighttrack(
            network, model.template_graph, model.search_graph, model.template_size, model.search_sides
        ),
        _MOBILE_VERIFIER if architecture == MOBILE else None,
    )


def _mixformerv2(tensors: Mapping[str, Tensor]) -> Plan:
    network = mixformerv2.load(tensors)
    found = network.architecture
    fields = {
        "tracker": "mixformerv2",
        "architecture": str(found),
        "template_size": found.template_size,
        "search_sizes": (found.search_size,),
        "stride": PATCH,
        "hyper_parameters": MixFormerV2HyperParameters(),
        "graphs": Graphs(template=tuple(f"template_{block}.onnx" for block in range(found.depth))),
    }
    return Plan(fields, lambda model: export_mixformerv2(network, model.template_graphs, model.search_graph))


def _dytrack(tensors: Mapping[str, Tensor]) -> Plan:
    network = dytrack.load(tensors)
    found = network.architecture
    decided = len(found.exits) - 1  # the last exit always stops
    fields = {
        "tracker": "dytrack",
        "architecture": str(found),
        "template_size": found.template_size,
        "search_sizes": (found.search_size,),
        "stride": PATCH,
        "hyper_parameters": DyTrackHyperParameters(
            max_exit=decided,
            # Starting points for `lighttrack tune-exits`.
            modes={"fast": (0.6,) * decided, "balanced": (0.75,) * decided, "accurate": (0.88,) * decided},
        ),
        "graphs": Graphs(search=tuple(f"stage_{stage}.onnx" for stage in range(len(found.exits)))),
    }
    return Plan(fields, lambda model: export_dytrack(network, model.template_graph, model.search_graphs))

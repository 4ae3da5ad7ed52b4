"""`lighttrack import`: a published checkpoint becomes a model folder."""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import tempfile
from pathlib import Path

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.export import export_lighttrack
from lighttrack_ros.models import Graphs, LightTrackHyperParameters, Model, Provenance, save_model, user_models
from lighttrack_ros.networks.lighttrack import MOBILE, Architecture, load_checkpoint

TEMPLATE_SIZE = 128
SEARCH_SIZES = (256, 288)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="LightTrackM.pth as published, or a .safetensors file")
    parser.add_argument("--name", required=True, help="name of the model, and of its folder")
    parser.add_argument("--architecture", default=MOBILE, help="path of the search space (default: LightTrack-Mobile)")
    parser.add_argument("--output", type=Path, help="folder that holds model folders (default: ./engines, or your own)")
    parser.add_argument("--source", help="where the checkpoint came from, for model.yaml (default: its file name)")
    parser.add_argument("--licence", default="not stated", help="licence of the weights, for model.yaml")


def run(args: argparse.Namespace) -> int:
    source = args.source or args.checkpoint.name
    folder = import_checkpoint(args.checkpoint, args.name, args.architecture, args.output, source, args.licence)
    print(f"model {args.name} is in {folder}")
    return 0


def import_checkpoint(
    checkpoint: Path, name: str, architecture: str, output: Path | None, source: str, licence: str
) -> Path:
    """Write the folder of a LightTrack model, replacing one of that name; prints how far the graphs are from PyTorch.

    Args:
        checkpoint: see `networks.lighttrack.load_checkpoint`.
        architecture: path string; see `networks.lighttrack.Architecture`.
        output: where the folder goes; None: `engines` where there is one, else the user's data directory.
        source, licence: for model.yaml.

    Raises:
        LightTrackError: a bad name or path string, or a checkpoint that does not fit; nothing is written then.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise LightTrackError(
            f"model name {name!r}: expected letters, digits, '_', '-' and '.', e.g. lighttrack_mobile"
        )
    parsed = Architecture.parse(architecture)
    network = load_checkpoint(checkpoint, parsed, TEMPLATE_SIZE)
    place = output or (Path("engines") if Path("engines").is_dir() else user_models())
    target = place / name
    place.mkdir(parents=True, exist_ok=True)
    # Built beside its place and moved there last: a failed import leaves nothing, and no half of a folder.
    with tempfile.TemporaryDirectory(prefix=".import-", dir=place) as scratch:
        model = Model(
            folder=Path(scratch) / name,
            name=name,
            tracker="lighttrack",
            architecture=architecture,
            template_size=TEMPLATE_SIZE,
            search_sizes=SEARCH_SIZES,
            stride=parsed.stride,
            provenance=Provenance(source, licence, hashlib.sha256(checkpoint.read_bytes()).hexdigest()),
            hyper_parameters=LightTrackHyperParameters(),
            graphs=Graphs(),
        )
        model.folder.mkdir()
        differences = export_lighttrack(network, model.template_graph, model.search_graph, TEMPLATE_SIZE, SEARCH_SIZES)
        for item in differences:
            print(
                f"{item.graph}, {item.output}: largest difference from PyTorch {item.largest:.2e}"
                f" (values up to {item.scale:.3g})"
            )
        save_model(model)
        if target.exists():
            shutil.move(target, Path(scratch) / "replaced")
        model.folder.rename(target)
    return target

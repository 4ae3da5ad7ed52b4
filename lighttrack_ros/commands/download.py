"""`lighttrack download`: download a published checkpoint from its authors' repository, check it and import it."""

from __future__ import annotations

import argparse
from pathlib import Path

from lighttrack_ros.export.download import PUBLISHED, checkpoint_cache, download
from lighttrack_ros.export.importer import import_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", choices=sorted(PUBLISHED))
    parser.add_argument("--output", type=Path, help="folder that holds model folders (default: ./engines, or your own)")
    parser.add_argument("--url", help="another address of the same file, e.g. a mirror")


def run(args: argparse.Namespace) -> int:
    published = PUBLISHED[args.model]
    checkpoint = download(args.url or published.url, published.blob, checkpoint_cache() / f"{args.model}.pth")
    folder = import_checkpoint(
        checkpoint, args.model, published.architecture, args.output, published.source, published.licence
    )
    print(f"model {args.model} is in {folder}")
    return 0

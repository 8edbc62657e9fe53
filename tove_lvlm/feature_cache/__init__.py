"""What frozen backbones gave for an image, kept on disk: entries of each backbone by the hash of the pixels.

`cache.FeatureCache` stands in a tower's `feature_cache` and reads, runs what is missing, and adds it. `codec` turns
features into records, `shard` is the file format, `table` the index in memory, `store` one backbone's shards, `folder`
the whole folder with its size limit, `identity` says what a backbone's features depend on, `upkeep` counts, checks and
prunes.

See docs/design.md, "Expert cache".
"""

from .cache import FeatureCache
from .folder import CacheFolder

__all__ = ["CacheFolder", "FeatureCache"]

"""`train.expert_cache` of every stage: the tower reads from a folder what its frozen parts gave before.

See docs/design.md, "Expert cache".
"""

import logging
from collections.abc import Callable
from typing import Any

from ..config.loop import LoopConfig
from ..feature_cache import CacheFolder, FeatureCache
from ..tower.modeling import ToVEVisionModel

logger = logging.getLogger(__name__)


def use_expert_cache(tower: Any, train: LoopConfig, *, with_clip: bool = True) -> FeatureCache | None:
    """Give a tower its cache, where the `train` block names one.

    Args:
        tower: With its weights, in the dtype that it runs in, what is trained marked as such. A plain CLIP of
            transformers has no place for a cache, which is said.
        train: The block.
        with_clip: Whether CLIP's tokens are kept too.

    Raises:
        UserError: The folder is no cache, or a part that would be kept is trained.
    """
    if train.expert_cache is None:
        return None
    if not isinstance(tower, ToVEVisionModel):
        logger.info("train.expert_cache is not used: a plain CLIP is the vision tower, which has no experts")
        return None
    folder = CacheFolder(train.expert_cache, train.expert_cache_size_gb)
    cache = FeatureCache(folder, tower, train.expert_cache_dtype, with_clip=with_clip)
    tower.feature_cache = cache
    return cache


def close_of(cache: FeatureCache | None) -> Callable[[], None]:
    """What a run calls at its end.

    Args:
        cache: From `use_expert_cache`.
    """
    return cache.close if cache is not None else lambda: None

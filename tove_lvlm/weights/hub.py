"""A hub repository's files on this machine: in a mirror folder, in the hub's cache, or downloaded.

Of a repository that holds its weights in several formats one is taken, and besides it only the files that say how the
network is built; of a language model also those of its tokenizer. The mirror folder (TOVE_MIRROR) is what `tove fetch
YAML --to DIR` writes: DIR/OWNER/NAME/..., and in each repository's folder a record of the commit that its files are of.
"""

import errno
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import (
    HfApi,
    constants,
    errors,
    hf_hub_download,
    snapshot_download,
    try_to_load_from_cache,
)

from .. import storage
from ..config import UserError
from ..registry import nearest
from ..storage import MissingWeightsError, PartialWeightsError
from ..storage.mirror import MIRROR_VARIABLE, in_mirror

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

RECORD = ".tove.json"
"""In a mirrored repository's folder: {"repo", "revision" (as asked), "commit", "files": {NAME: {"size", "sha256"}}}."""
CONFIG_FILES = ("config.json", "open_clip_config.json", "preprocessor_config.json", "processor_config.json")
"""What is taken besides the weights, where a repository has it."""
TEXT_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)
"""And of a language model's, besides these."""
DEFAULT_REVISION = "main"


def fetch(
    repo: str, revision: str | None = None, file: str | None = None, weights: bool = True, compared: bool = False
) -> Path:
    """The folder with a repository's files; downloaded where that is needed and allowed.

    Args:
        repo: Hub id.
        revision: Branch, tag or commit.
        file: Name of the weights in the repository, or a pattern of standard names; any of these when left out.
        weights: Whether the weights are wanted, or only the configuration.
        compared: Whether a checksum will be compared, so that the mirror may hold any revision.

    Raises:
        MissingWeightsError: It is nowhere to be had; says why, and what to do.
        UserError: The mirror holds another revision.
    """
    mirror = mirrored(repo, None if compared else revision)
    for folder in (mirror, cached(repo, revision, file) if is_commit(revision) else None):
        if folder is not None and _problem(folder, file, weights) is None:
            return folder
    if constants.is_offline_mode():
        reason, cause = "HF_HUB_OFFLINE is set", None
    else:
        try:
            return _download(repo, revision, file, weights)
        except MissingWeightsError:
            raise
        except Exception as error:  # the hub's client raises its own, httpx's and OSError
            reason, cause = explained(repo, revision, error), error
    try:
        return local(repo, revision, file, weights, compared)
    except MissingWeightsError as error:
        raise MissingWeightsError(
            f"`{repo}` is no file or folder here and cannot be had from the hub ({reason}): {error}; give a folder, or "
            f"download it once with network (`tove fetch`)"
        ) from cause


def local(
    repo: str, revision: str | None = None, file: str | None = None, weights: bool = True, compared: bool = False
) -> Path:
    """As `fetch`, from what is on this machine alone.

    Raises:
        MissingWeightsError: Neither the mirror nor the hub's cache has it; a PartialWeightsError when one has a part.
        UserError: The mirror holds another revision.
    """
    problems = []
    for folder in (mirrored(repo, None if compared else revision), cached(repo, revision, file)):
        problem = _problem(folder, file, weights) if folder is not None else None
        if folder is not None and problem is None:
            return folder
        problems += [problem] if problem is not None else []
    partial = [problem for problem in problems if isinstance(problem, PartialWeightsError)]
    for problem in partial or problems:
        raise problem
    mirror = os.environ.get(MIRROR_VARIABLE)
    looked = f"the hub's cache {constants.HF_HUB_CACHE}" + (f" and the mirror {mirror}" if mirror else "")
    at = f" at revision `{revision}`" if revision else ""
    raise MissingWeightsError(f"`{repo}`{at} is not in {looked}")


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a whole commit hash, whose files never change."""
    return revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) is not None


# ---- mirror and cache ----


def mirrored(repo: str, revision: str | None = None) -> Path | None:
    """The repository's folder in the mirror, or None when there is no mirror or it has no such folder.

    Raises:
        UserError: TOVE_MIRROR is no folder, or the repository is there at another revision.
    """
    folder = in_mirror(repo)
    if folder is not None and revision is not None:
        record = read_record(folder)
        if not record or revision not in (record["commit"], record["revision"]):
            holds_file = (
                f"at revision `{record['revision']}` ({record['commit'][:12]})"
                if record
                else "at one it has no record of"
            )
            raise UserError(
                f"`{repo}` is wanted at revision `{revision}`, and the mirror has it {holds_file}: {folder}; fetch "
                f"that one into another folder, or leave {MIRROR_VARIABLE} unset"
            )
    return folder


def read_record(folder: Path) -> dict:
    """What a mirrored repository's folder says of itself; empty when it says nothing."""
    file = folder / RECORD
    return storage.load_json(file) if file.is_file() else {}


def recorded_sha256(file: Path) -> str | None:
    """What the mirror's record says of a file in it; None for any other file, and where the hub stated nothing."""
    for folder in file.parents:
        checksum = read_record(folder).get("files", {}).get(file.relative_to(folder).as_posix())
        if checksum is not None:
            return checksum["sha256"]
    return None


def cached(repo: str, revision: str | None = None, file: str | None = None) -> Path | None:
    """The repository's folder in the hub's cache, or None when it has nothing of it that we use."""
    weights = [name + ending for name in storage.STANDARD_NAMES for ending in ("", storage.INDEX)]
    named = [file] if file is not None and not storage.is_pattern(file) else []
    for name in (*named, *CONFIG_FILES, *weights):
        path = try_to_load_from_cache(repo, name, revision=revision)
        if isinstance(path, str):
            return Path(path.removesuffix(name))
    return None


def commit_of(folder: Path) -> str | None:
    """The commit that a folder from `fetch` is of, where it is known."""
    if folder.parent.name == "snapshots":  # the layout of the hub's cache
        return folder.name
    return read_record(folder).get("commit")


def _problem(folder: Path, file: str | None, weights: bool) -> MissingWeightsError | None:
    """What keeps a folder from being used; None when nothing does."""
    if not weights:
        if any((folder / name).is_file() for name in CONFIG_FILES):
            return None
        return MissingWeightsError(f"folder `{folder}` holds none of {', '.join(CONFIG_FILES)}")
    recorded = read_record(folder).get("files", {})
    try:
        files = storage.weight_files(storage.named_file(folder, file))
    except MissingWeightsError as error:
        expected = storage.standard_names(file) if storage.is_pattern(file) else [file] if file else recorded
        lost = sorted(name for name in recorded if name in expected and not (folder / name).is_file())
        if lost:
            return PartialWeightsError(f"mirror folder `{folder}`: `{lost[0]}` has not been fetched to its end")
        return error
    for path in files:
        name, size = path.relative_to(folder).as_posix(), path.stat().st_size
        if name in recorded and recorded[name]["size"] != size:
            return PartialWeightsError(f"weights `{path}` have {size} bytes, expected {recorded[name]['size']}")
    return None


# ---- download ----


def choose(names: Collection[str], file: str | None, repo: str) -> str:
    """The one file, or index of shards, that a repository's weights are read from.

    Args:
        names: All files of the repository.
        file: The name to take, or a pattern of standard names; the first of these when left out.
        repo: For the message.

    Raises:
        MissingWeightsError: The repository has no such file, or no weights under a standard name.
    """
    if file is not None and not storage.is_pattern(file):
        if file not in names:
            raise MissingWeightsError(f"hub repository `{repo}` has no file `{file}`; {nearest(file, names)}")
        return file
    for name in storage.standard_names(file):
        for candidate in (name,) if file else (name, name + storage.INDEX):
            if candidate in names:
                return candidate
    others = [name for name in names if name.endswith(storage.WEIGHT_SUFFIXES)]
    hint = f"; `file` can name one of {', '.join(f'`{name}`' for name in sorted(others)[:5])}" if others else ""
    expected = ", ".join(storage.standard_names(file))
    raise MissingWeightsError(f"hub repository `{repo}` holds none of {expected}{hint}")


def needed(names: Collection[str], file: str | None, weights: bool, repo: str, get: Callable[[str], Path]) -> list[str]:
    """Names of all files of a repository that are wanted.

    Args:
        names: All files of the repository.
        file: As for `choose`.
        weights: As for `fetch`.
        repo: For the message.
        get: Downloads one file, for the index that names the shards.

    Raises:
        MissingWeightsError: As for `choose`, or a shard is missing.
    """
    files = [name for name in CONFIG_FILES if name in names]
    if not weights:
        return files
    chosen = choose(names, file, repo)
    files.append(chosen)
    if chosen.endswith(storage.INDEX):
        shards = storage.shard_names(get(chosen))
        lost = [name for name in shards if name not in names]
        if lost:
            raise MissingWeightsError(f"hub repository `{repo}`: `{chosen}` names `{lost[0]}`, which it does not have")
        files += shards
    return files


def _download(repo: str, revision: str | None, file: str | None, weights: bool) -> Path:
    names = list(listed(model_info(repo, revision)))
    files = needed(names, file, weights, repo, lambda name: Path(hf_hub_download(repo, name, revision=revision)))
    folder = Path(snapshot_download(repo, revision=revision, allow_patterns=files))
    problem = _problem(folder, file, weights)
    if problem is not None:
        raise problem
    return folder


def model_info(repo: str, revision: str | None, files_metadata: bool = False) -> "ModelInfo":
    """What the hub says of a repository. A hub that falls silent is an error: the client of its own accord waits on.

    Args:
        repo: Hub id.
        revision: Branch, tag or commit.
        files_metadata: Whether sizes and checksums are asked for too.
    """
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    return HfApi().model_info(repo, revision=revision, files_metadata=files_metadata, timeout=timeout)


def listed(info: "ModelInfo") -> "dict[str, RepoSibling]":
    """A repository's files by name; an entry without one is nothing that can be asked for."""
    return {entry.rfilename: entry for entry in info.siblings or () if isinstance(entry.rfilename, str)}


def explained(repo: str, revision: str | None, error: Exception) -> str:
    """Why the hub's client could not give a file, for people, in a few words."""
    url = f"{constants.ENDPOINT}/{repo}"
    if isinstance(error, errors.GatedRepoError):
        return f"gated: accept its terms at {url} and give a token (`hf auth login`, or HF_TOKEN)"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision `{revision}`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"404: no such repository at {url}, or a private one and no token (HF_TOKEN) that may read it"
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        return f"{constants.ENDPOINT} answered {error.response.status_code}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space left on the disk"
    if isinstance(error, OSError) and error.filename is not None:  # of a file here: no permission, no folder
        return f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}; no network to {constants.ENDPOINT}?"

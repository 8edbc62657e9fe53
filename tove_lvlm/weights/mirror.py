"""A mirror folder: all that a tower or a run needs from the hub, for a cluster without network.

DIR/OWNER/NAME/ holds one commit of each repository, and `hub.RECORD` in it says which. What was begun at a commit is
finished at that commit, so a download that is resumed a week later is still one model.
"""

import functools
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from huggingface_hub.errors import HfHubHTTPError

from .. import storage
from ..config import UserError
from ..config.sources import WeightSource, is_hub_id
from ..storage import MissingWeightsError
from . import download, hub
from .download import RemoteFile
from .sources import ChecksumError, verify

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

Progress = Callable[[RemoteFile, int], None]
"""Called with a file and the bytes of it that are here."""


@dataclass(frozen=True, kw_only=True)
class MirroredRepository:
    """What is wanted of one repository."""

    repo: str
    revision: str
    """As it was asked for."""
    commit: str
    """What that is on the hub."""
    parts: dict[str, WeightSource]
    """What is read from it."""
    files: list[RemoteFile] = field(default_factory=list)


def plan(parts: Mapping[str, WeightSource], to: Path, with_text: Collection[str] = ()) -> list[MirroredRepository]:
    """Ask the hub what there is to download; nothing is written.

    Args:
        parts: What is wanted, by name; parts that are not on the hub are passed over.
        to: The mirror folder; it may hold a part already.
        with_text: Names of the parts whose tokenizer is wanted too.

    Raises:
        UserError: One repository is wanted at two revisions, or is mirrored at another one.
        MissingWeightsError: A repository, revision or file is not to be had; says why.
        ChecksumError: The hub's file is not the one that a `sha256` names.
    """
    repositories: dict[str, dict[str, WeightSource]] = {}
    for part, source in parts.items():
        if source.pretrained is not None and is_hub_id(source.pretrained):
            repositories.setdefault(source.pretrained, {})[part] = source
    return [_look_up(repo, of_it, to / repo, with_text) for repo, of_it in repositories.items()]


def fill(repositories: Iterable[MirroredRepository], to: Path, progress: Progress) -> tuple[list[str], dict[str, str]]:
    """Download what is missing, check all of it and write the records.

    A repository that the hub refuses does not keep the others from being fetched.

    Args:
        repositories: From `plan`.
        to: The mirror folder.
        progress: For a progress bar.

    Returns:
        (files that were downloaded, as REPO/NAME; repositories that the hub refused, with a line on why).

    Raises:
        UserError: No space left, no network, or a file that is not what the hub or a `sha256` says.
    """
    fetched, refused = [], {}
    for repository in repositories:
        folder = to / repository.repo
        try:
            _write_record(repository, folder)
            for file in repository.files:
                if download.download(file, folder, functools.partial(progress, file)):
                    fetched.append(f"{repository.repo}/{file.name}")
        except HfHubHTTPError as error:
            refused[repository.repo] = (
                f"`{repository.repo}`: {hub.explained(repository.repo, repository.revision, error)}"
            )
            continue
        except UserError:
            raise
        except Exception as error:  # OSError of the disk, httpx's of the network
            reason = hub.explained(repository.repo, repository.revision, error)
            raise UserError(f"`{repository.repo}`: {reason}; the same command goes on from here") from error
        compared = {None, *(file.sha256 for file in repository.files)}
        for source in repository.parts.values():
            if source.sha256 not in compared:  # of shards, or of a file that the hub has no SHA-256 of
                verify(source, storage.named_file(folder, source.file))
    return fetched, refused


def check_space(repositories: Iterable[MirroredRepository], to: Path) -> None:
    """Refuse before anything is written what the disk cannot hold.

    Raises:
        UserError: Names both sizes.
    """
    missing = sum(
        file.size - download.size_here(file, to / repository.repo)
        for repository in repositories
        for file in repository.files
        if not (to / repository.repo / file.name).is_file()
    )
    existing = next(folder for folder in (to.absolute(), *to.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if missing > free:
        raise UserError(f"`{to}` needs {missing / 1e9:.2f} GB more, and its disk has {free / 1e9:.2f} GB left")


def _look_up(repo: str, parts: dict[str, WeightSource], folder: Path, with_text: Collection[str]) -> MirroredRepository:
    revisions = sorted({source.revision or hub.DEFAULT_REVISION for source in parts.values()})
    if len(revisions) > 1:
        raise UserError(f"`{repo}` is wanted at the revisions {' and '.join(revisions)}; a mirror folder holds one")
    revision = revisions[0]
    record = hub.read_record(folder)
    if record and revision not in (record["commit"], record["revision"]):
        raise UserError(
            f"{folder} holds `{repo}` at revision `{record['revision']}`, and `{revision}` is wanted; name another "
            "folder with --to, or remove that one"
        )
    try:
        info = hub.model_info(repo, record["commit"] if record else revision, files_metadata=True)
    except Exception as error:  # the hub's client raises its own, httpx's and OSError
        raise MissingWeightsError(f"`{repo}`: {hub.explained(repo, revision, error)}") from error
    if info.sha is None:
        raise MissingWeightsError(f"`{repo}`: the hub does not say which commit `{revision}` is")
    listed = hub.listed(info)
    described = functools.partial(_described, repo, info.sha, listed)
    files_needed: dict[str, RemoteFile] = {}
    for part, source in parts.items():
        names = _needed(listed, described, source, repo, revision)
        text = [name for name in hub.TEXT_FILES if name in listed and part in with_text]
        files_needed |= {name: described(name) for name in (*names, *text)}
        weights = [name for name in names if name not in hub.CONFIG_FILES]
        stated = files_needed[weights[0]].sha256 if len(weights) == 1 else None
        if source.sha256 is not None and stated not in (None, source.sha256):
            raise ChecksumError(f"`{repo}`: `{weights[0]}` has the sha256 {stated}, expected {source.sha256}")
    return MirroredRepository(
        repo=repo,
        revision=revision,
        commit=info.sha,
        parts=parts,
        files=sorted(files_needed.values(), key=lambda f: f.size),
    )


def _described(repo: str, commit: str, listed: "Mapping[str, RepoSibling]", name: str) -> RemoteFile:
    """A file of the hub's list; its size is what says whether it has arrived whole."""
    entry = listed[name]
    size = entry.lfs.size if entry.lfs else entry.size
    if not isinstance(size, int) or size < 0:
        raise MissingWeightsError(f"`{repo}`: the hub does not say how large `{name}` is, so it cannot be mirrored")
    return RemoteFile(
        repo=repo,
        commit=commit,
        name=name,
        size=size,
        sha256=entry.lfs.sha256 if entry.lfs else None,
        blob=None if entry.lfs else entry.blob_id,
    )


def _needed(
    names: Collection[str], described: Callable[[str], RemoteFile], source: WeightSource, repo: str, revision: str
) -> list[str]:
    with TemporaryDirectory() as folder:

        def get(name: str) -> Path:
            try:
                download.download(described(name), Path(folder))
            except UserError:
                raise
            except Exception as error:  # as above
                raise MissingWeightsError(f"`{repo}`: {hub.explained(repo, revision, error)}") from error
            return Path(folder) / name

        return hub.needed(names, source.file, True, repo, get)


def _write_record(repository: MirroredRepository, folder: Path) -> None:
    """Before the files, so that a folder with a part of them says so."""
    storage.clear_leftovers(folder)
    files = hub.read_record(folder).get("files", {})
    files |= {file.name: {"size": file.size, "sha256": file.sha256} for file in repository.files}
    record = {"repo": repository.repo, "revision": repository.revision, "commit": repository.commit, "files": files}
    storage.save_json(folder / hub.RECORD, record)

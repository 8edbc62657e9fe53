"""A folder brought to a repository of the hub, in one commit; what only this machine knows stays here."""

import os
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from ..config import UserError
from .hub import explained

_DENIED = (401, 403)


def upload(
    folder: str | Path,
    repo: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    message: str | None = None,
    description: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Upload a folder's files; those that the repository has beside them stay.

    Args:
        folder: With files, or links to such.
        repo: Hub id; the repository is made where there is none.
        private: Whether one that is made can be seen by its owner alone; None leaves it to the owner's settings.
        revision: Branch, made where there is none; None takes the main one.
        create_pr: Open a pull request instead.
        message: Of the commit.
        description: Of the commit, below the message.
        token: As the hub's client takes it; None takes the one that it has saved.

    Returns:
        Address of the commit.

    Raises:
        UserError: No such name can be, no network, or no right to write there.
    """
    if constants.is_offline_mode():
        raise UserError("HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it for this command")
    api = HfApi(token=token)
    try:
        made = api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None and not create_pr:
            api.create_branch(made.repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            folder_path=folder,
            repo_id=made.repo_id,
            revision=revision,
            create_pr=create_pr,
            commit_message=message,
            commit_description=description,
        )
    except HFValidationError as error:
        raise UserError(f"`{repo}` is no name of a repository: expected OWNER/NAME ({error})") from error
    except Exception as error:
        from_network = type(error).__module__.startswith("httpx")  # httpx or httpx2, as the client's version has it
        if not from_network and not isinstance(error, (HfHubHTTPError, OSError)):
            raise
        reason = explained(repo, revision, error)
        if isinstance(error, HfHubHTTPError) and error.response is not None and error.response.status_code in _DENIED:
            reason += "; a token that may write there is needed (`hf auth login`, or HF_TOKEN)"
        raise UserError(f"`{repo}` was not written: {reason}") from error
    return str(commit.commit_url)


def without_local_places(content: Any) -> Any:
    """A JSON's content without the entries that name a place on this machine, which nobody else has.

    Args:
        content: Dictionaries, lists and plain values.
    """
    if isinstance(content, dict):
        return {key: without_local_places(value) for key, value in content.items() if not _is_local(value)}
    return [without_local_places(value) for value in content] if isinstance(content, list) else content


def _is_local(value: Any) -> bool:
    return isinstance(value, str) and (os.path.isabs(value) or value.startswith("~")) and "\n" not in value

"""Sending a folder to the Hugging Face hub, by huggingface_hub, which is asked for when needed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ldd_jax.core.checks import RunError, UserError, require

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def check(name: str) -> None:
    """Refuse before any work what `push` could not do.

    Raises:
      UserError: for a name that is none, or without the library.
    """
    require(bool(NAME.fullmatch(name)), f"--push={name}; give OWNER/NAME, as the hub has it")
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise UserError("--push needs huggingface_hub: pip install 'ldd-jax[hub]'") from error


def push(folder: Path, name: str, *, private: bool) -> str:
    """Upload a folder as a model; returns its address.

    Who one is there, the library knows: HF_TOKEN, or its own login. HF_ENDPOINT is another hub.

    Args:
      folder: of `publishing.save`.
      name: OWNER/NAME; made if it is not there.
      private: of one that is made: seen by its owner alone.

    Raises:
      RunError: if it cannot be sent; the folder is as it was.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="ldd_jax")
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="ldd_jax publish")
    except Exception as error:  # its own, of HTTP, of the store behind it: of several libraries
        raise RunError(
            f"cannot push to {name}: {error}; {folder} is whole: hf upload {name} {folder}"
        ) from error
    return str(address)

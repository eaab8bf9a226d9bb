"""Files of a Hugging Face repository, from its local cache or the network; only safetensors are asked for."""

from __future__ import annotations

from pathlib import Path

from saccade.errors import ModelError

HUB_SECONDS = 10.0


def safetensors_name(filename: str) -> str:
    """The name under which timm's repositories keep a weights file's safetensors form."""
    if filename in ("", "pytorch_model.bin"):
        return "model.safetensors"
    return str(Path(filename).with_suffix(".safetensors"))


def fetch_from_hub(repository: str, filename: str, revision: str | None) -> Path:
    """One file of a Hugging Face repository, from its cache or the network.

    One quick question comes first, since the hub's own client takes 23 s to give up on a dead network.
    Raises OSError when the hub cannot be reached, ModelError when it has no such file.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(repository, filename, revision=revision, local_files_only=True))
    except OSError:
        pass  # not in the cache
    try:
        get_hf_file_metadata(hf_hub_url(repository, filename, revision=revision), timeout=HUB_SECONDS)
        return Path(hf_hub_download(repository, filename, revision=revision))
    except EntryNotFoundError:
        raise ModelError(
            f"{repository} offers no {filename}, and pickled weights are never read",
            hint="convert them to safetensors elsewhere and give them with --weights FILE",
        ) from None
    except Exception as error:  # the client passes on whatever its HTTP library raises
        raise OSError(first_line(error)) from None


def first_line(error: BaseException) -> str:
    """What an error says first, or its name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

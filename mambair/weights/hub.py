"""What huggingface_hub, where it is installed, has of a user: files in its cache, and the token of an account."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

from mambair.weights.addresses import hub_endpoint


def hub_installed() -> bool:
    """Whether a package named huggingface_hub can be found; it is not imported."""
    name = "huggingface_hub"
    return sys.modules.get(name, True) is not None and importlib.util.find_spec(name) is not None


def file_in_hub_cache(urls: tuple[str, ...]) -> Path | None:
    """The file of one of these addresses in huggingface_hub's own cache; None if it is not there."""
    if not hub_installed():
        return None
    from huggingface_hub import try_to_load_from_cache

    for url in urls:
        match = re.fullmatch(rf"{re.escape(hub_endpoint())}/([^/]+/[^/]+)/resolve/main/(.+)", url)
        path = try_to_load_from_cache(match[1], match[2]) if match else None
        if isinstance(path, str):
            return Path(path)
    return None


def hub_token(url: str) -> str | None:
    """The token of the user's account (``HF_TOKEN``, ``hf auth login``) for a file of the hub; None for any other."""
    if not url.startswith(f"{hub_endpoint()}/") or not hub_installed():
        return None
    from huggingface_hub import get_token

    return get_token()

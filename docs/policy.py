"""A content policy for every page of the documentation site: its own scripts by their hashes, and no network."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

CHARSET = re.compile(r"<meta charset=[^>]*>")
INLINE = re.compile(r"<script(?P<attributes>[^>]*)>(?P<text>.*?)</script>", re.DOTALL)
SOURCE = re.compile(r"(^|\s)src=")
DATA = re.compile(r"type=[\"']?application/json")
OWN = "'self' file:"
"""A page read from the disk has no origin of its own: there the site's files are those of the disk."""


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Put the policy into a page."""
    return with_policy(output)


def on_post_template(output_content: str, template_name: str, config: Any) -> str:
    """Put the policy into the 404 page."""
    return with_policy(output_content) if template_name.endswith(".html") else output_content


def with_policy(html: str) -> str:
    """A page that may run the inline scripts it was built with and the site's files, and load nothing else.

    What the build itself puts into a page is trusted: it is the text of this repository. Styles may be inline, since
    the theme and plotly write them while they run.

    Raises:
        ValueError: if the page says no character set, behind which the policy goes.
    """
    if not CHARSET.search(html):
        raise ValueError("a page without <meta charset> would have no policy")
    hashes = sorted(
        {
            base64.b64encode(hashlib.sha256(found["text"].encode()).digest()).decode()
            for found in INLINE.finditer(html)
            if not SOURCE.search(found["attributes"]) and not DATA.search(found["attributes"])
        }
    )
    scripts = " ".join(f"'sha256-{one}'" for one in hashes)
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {OWN} {scripts}".rstrip(),
            f"style-src {OWN} 'unsafe-inline'",
            f"img-src {OWN} data: blob:",
            f"font-src {OWN} data:",
            f"connect-src {OWN}",
            f"worker-src {OWN} blob:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    return CHARSET.sub(lambda found: found[0] + meta, html, count=1)

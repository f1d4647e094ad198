"""Reads a page as a browser would and says what in it could run, load or leave."""

import html.parser
import re

# What the style sheets of a page may hold: pictures as data.
_LOADED = re.compile(r"url\(\s*['\"]?(?!data:)|@import", re.IGNORECASE)
_FORBIDDEN = {"script", "iframe", "frame", "object", "embed", "link", "base", "form", "input"}
_FORBIDDEN |= {"button", "svg", "math", "template", "audio", "video", "source", "portal", "applet"}
_ADDRESSES = {"src", "href", "action", "formaction", "data", "poster", "background", "srcset"}
_ADDRESSES |= {"cite", "ping", "xlink:href"}


class _Reader(html.parser.HTMLParser):
    def __init__(self, allowed):
        super().__init__()
        self.faults, self.allowed, self.text, self.alts, self.inside = [], allowed, [], [], ""

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        if tag in _FORBIDDEN:
            self.faults.append(f"<{tag}>")
        if tag == "img":
            self.alts.append(dict(attrs).get("alt"))
        for name, value in attrs:
            if name.startswith("on") or (name == "http-equiv" and value.lower() == "refresh"):
                self.faults.append(f"<{tag} {name}>")
            if name in _ADDRESSES and not self.is_harmless(tag, value or ""):
                self.faults.append(f"<{tag} {name}={value[:60]}>")
            if name == "style" and _LOADED.search(value or ""):
                self.faults.append(f"<{tag} style>")

    def is_harmless(self, tag, value):
        picture = re.fullmatch(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+", value)
        return value in self.allowed or bool(tag == "img" and picture)

    def handle_data(self, data):
        if self.inside == "style" and _LOADED.search(data):
            self.faults.append("style sheet that loads")
        self.text.append(data)


def read(page, allowed=()):
    """The faults of a page, its text without markup, and the alternative texts of its pictures.

    `allowed` are addresses of the report's own pages.
    """
    reader = _Reader(set(allowed))
    reader.feed(page)
    reader.close()
    return reader.faults, "".join(reader.text), reader.alts

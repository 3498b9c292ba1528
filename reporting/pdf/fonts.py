"""Adapter: reads the fonts of the PDF report from installed packages, and says which font shows which text.

DejaVu Sans (from matplotlib, a core dependency) is embedded: Latin with all accents, Greek,
Cyrillic, Armenian, Georgian, Hebrew, Arabic. Chinese, Japanese and Korean take the fonts that
every PDF reader has or substitutes (Adobe's character collections); they are named, not embedded.
Hebrew and Arabic are laid out from right to left without joining letters. What no font has
(Devanagari, Thai, ...) becomes a visible replacement character: nothing here ever fails on a name.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from html import escape
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Final

import reportlab
from reportlab import rl_config
from reportlab.lib.fonts import addMapping
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFont

FAMILY: Final = "PrereadSans"
REGULAR: Final = "PrereadSans"
BOLD: Final = "PrereadSans-Bold"
_JAPANESE, _KOREAN, _CHINESE = "HeiseiKakuGo-W5", "HYGothic-Medium", "STSong-Light"
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
#: Unicode blocks (first, last code point) that the substituted fonts show; Han goes with its neighbours.
_KANA: Final = ((0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F))
_HANGUL: Final = ((0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7AF))
_HAN: Final = (
    (0x2E80, 0x2FDF),
    (0x3000, 0x303F),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF00, 0xFFEF),
)
_RIGHT_TO_LEFT: Final = frozenset({"R", "AL"})
_NEUTRAL: Final = frozenset({"WS", "NSM", "CS", "ON", "ES"})


@cache
def register_fonts() -> None:
    """Make the fonts known to reportlab, and have it write bytes as they are; once per process.

    Its default, ASCII85, makes files a quarter larger and is most of the time that a file takes.
    """
    rl_config.useA85 = 0
    files = _font_files()
    for name, file in files.items():
        pdfmetrics.registerFont(TTFont(name, str(file), asciiReadable=True))
    for name in (_JAPANESE, _KOREAN, _CHINESE):
        pdfmetrics.registerFont(UnicodeCIDFont(name))
    for is_italic in (0, 1):
        addMapping(FAMILY, 0, is_italic, REGULAR)
        addMapping(FAMILY, 1, is_italic, BOLD)


def markup(text: str, *, is_bold: bool = False) -> str:
    """Return untrusted text as a paragraph takes it: escaped, each run in a font that shows it.

    Parameters
    ----------
    text : str
        Anything, control characters and lone surrogates included.
    is_bold : bool
        Whether the embedded font is the bold one.
    """
    register_fonts()
    font = BOLD if is_bold else REGULAR
    return "".join(
        escape(run) if name == font else f'<font name="{name}">{escape(run)}</font>'
        for name, run in split_runs(text, font)
    )


def split_runs(text: str, font: str = REGULAR) -> list[tuple[str, str]]:
    """Return a text in the order in which it is drawn, in runs of one font.

    Returns
    -------
    list of (str, str)
        Font name and characters; what no font has is replaced.
    """
    register_fonts()
    clean = unicodedata.normalize("NFC", "".join(c if c.isprintable() else " " for c in text)).strip()
    ordered = _as_drawn(clean)
    neighbours = _font_of_han(clean)
    fonts = [(_font_of(c, font, neighbours), c) for c in ordered]
    shown = [(name or font, c if name else _REPLACEMENT) for name, c in fonts]
    return [(name, "".join(c for _, c in run)) for name, run in groupby(shown, key=lambda pair: pair[0])]


def _font_of(character: str, font: str, han: str) -> str | None:
    """Return the font that shows a character; None if none does."""
    code = ord(character)
    if code in pdfmetrics.getFont(font).face.charToGlyph:
        return font
    if _is_in(code, _KANA):
        return _JAPANESE
    if _is_in(code, _HANGUL):
        return _KOREAN
    return han if _is_in(code, _HAN) else None


def _font_of_han(text: str) -> str:
    """Return the font for Han characters: that of the kana or Hangul beside them, else a Chinese one."""
    codes = [ord(character) for character in text]
    if any(_is_in(code, _KANA) for code in codes):
        return _JAPANESE
    return _KOREAN if any(_is_in(code, _HANGUL) for code in codes) else _CHINESE


def _is_in(code: int, blocks: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code <= last for first, last in blocks)


def _as_drawn(text: str) -> str:
    """Return a text with its runs of right-to-left letters turned round, as they are seen.

    Enough for names and descriptions; paragraphs of mixed direction would need the full algorithm (UAX 9).
    """
    drawn: list[str] = []
    run: list[str] = []
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in _RIGHT_TO_LEFT or (run and direction in _NEUTRAL):
            run.append(character)
            continue
        drawn += _turned(run)
        run = []
        drawn.append(character)
    return "".join([*drawn, *_turned(run)])


def _turned(run: list[str]) -> list[str]:
    """Return a run from right to left; neutral characters at its end belong to what follows."""
    end = len(run)
    while end and unicodedata.bidirectional(run[end - 1]) in _NEUTRAL:
        end -= 1
    return [*reversed(run[:end]), *run[end:]]


def _font_files() -> dict[str, Path]:
    """Return the files of the embedded fonts: DejaVu, or reportlab's own Vera (Latin-1) without it."""
    spec = find_spec("matplotlib")
    roots = [] if spec is None else list(spec.submodule_search_locations or [])
    for root in roots:
        folder = Path(root) / "mpl-data" / "fonts" / "ttf"
        files = {REGULAR: folder / "DejaVuSans.ttf", BOLD: folder / "DejaVuSans-Bold.ttf"}
        if all(file.is_file() for file in files.values()):
            return files
    own = Path(reportlab.__file__).parent / "fonts"
    return {REGULAR: own / "Vera.ttf", BOLD: own / "VeraBd.ttf"}

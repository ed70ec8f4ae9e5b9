"""The languages Whisper names, by their ISO 639-1 codes (three letters where there are no two)."""

from __future__ import annotations

import re

from audio_storage_system.errors import InvalidInput

_NAMES = """
en english, zh chinese, de german, es spanish, ru russian, ko korean, fr french, ja japanese, pt portuguese, tr turkish,
pl polish, ca catalan, nl dutch, ar arabic, sv swedish, it italian, id indonesian, hi hindi, fi finnish, vi vietnamese,
he hebrew, uk ukrainian, el greek, ms malay, cs czech, ro romanian, da danish, hu hungarian, ta tamil, no norwegian,
th thai, ur urdu, hr croatian, bg bulgarian, lt lithuanian, la latin, mi maori, ml malayalam, cy welsh, sk slovak,
te telugu, fa persian, lv latvian, bn bengali, sr serbian, az azerbaijani, sl slovenian, kn kannada, et estonian,
mk macedonian, br breton, eu basque, is icelandic, hy armenian, ne nepali, mn mongolian, bs bosnian, kk kazakh,
sq albanian, sw swahili, gl galician, mr marathi, pa punjabi, si sinhala, km khmer, sn shona, yo yoruba, so somali,
af afrikaans, oc occitan, ka georgian, be belarusian, tg tajik, sd sindhi, gu gujarati, am amharic, yi yiddish, lo lao,
uz uzbek, fo faroese, ht haitian creole, ps pashto, tk turkmen, nn nynorsk, mt maltese, sa sanskrit, lb luxembourgish,
my myanmar, bo tibetan, tl tagalog, mg malagasy, as assamese, tt tatar, haw hawaiian, ln lingala, ha hausa, ba bashkir,
jw javanese, su sundanese, yue cantonese
"""
_PAIRS = (entry.split(maxsplit=1) for entry in _NAMES.split(","))
_CODES = {name.strip(): code for code, name in _PAIRS}
LANGUAGES = {code: name for name, code in _CODES.items()}


# As BCP 47 writes them; engines know languages that Whisper does not.
_TAG = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")


def check_language(name: str | None) -> None:
    """Raise `InvalidInput` for what is neither a language's name nor the form of a code."""
    code = language_code(name)
    if code and not _TAG.fullmatch(code):
        raise InvalidInput(reason=f'"{name}" is no language: give a code such as "en", or an English name')


def language_code(name: str | None) -> str | None:
    """The code for a language given by name or code, in any case; an unknown one as it is, in lower case."""
    if not name:
        return None
    return _CODES.get(name.strip().lower(), name.strip().lower())

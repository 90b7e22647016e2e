"""English names of language codes, for readers of a report."""

from __future__ import annotations

import re

_NAMES = {
    "ach": "Acholi", "af": "Afrikaans", "ak": "Akan", "am": "Amharic", "an": "Aragonese", "ar": "Arabic",
    "as": "Assamese", "ast": "Asturian", "az": "Azerbaijani", "be": "Belarusian", "bg": "Bulgarian", "bm": "Bambara",
    "bn": "Bengali", "bo": "Tibetan", "br": "Breton", "brx": "Bodo", "bs": "Bosnian", "ca": "Catalan", "cgg": "Chiga",
    "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German", "doi": "Dogri", "el": "Greek", "en": "English",
    "eo": "Esperanto", "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian", "ff": "Fulah",
    "fi": "Finnish", "fil": "Filipino", "fo": "Faroese", "fr": "French", "ga": "Irish", "gd": "Gaelic",
    "gl": "Galician", "gos": "Gronings", "gu": "Gujarati", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian",
    "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian", "is": "Icelandic", "it": "Italian", "iu": "Inuktitut",
    "ja": "Japanese", "ka": "Georgian", "kab": "Kabyle", "kk": "Kazakh", "km": "Khmer", "kn": "Kannada",
    "ko": "Korean", "kok": "Konkani", "ks": "Kashmiri", "ku": "Kurdish", "lb": "Luxembourgish", "lg": "Ganda",
    "lt": "Lithuanian", "lv": "Latvian", "mai": "Maithili", "mi": "Maori", "mk": "Macedonian", "ml": "Malayalam",
    "mn": "Mongolian", "mni": "Manipuri", "mr": "Marathi", "ms": "Malay", "nb": "Norwegian Bokmål", "ne": "Nepali",
    "nl": "Dutch", "nn": "Norwegian Nynorsk", "no": "Norwegian", "nr": "South Ndebele", "nso": "Northern Sotho",
    "oc": "Occitan", "oj": "Ojibwe", "or": "Odia", "pa": "Punjabi", "pl": "Polish", "pt": "Portuguese",
    "quz": "Quechua", "ro": "Romanian", "ru": "Russian", "rw": "Kinyarwanda", "sa": "Sanskrit", "sat": "Santali",
    "sc": "Sardinian", "sd": "Sindhi", "shs": "Shuswap", "si": "Sinhala", "sk": "Slovak", "sl": "Slovenian",
    "son": "Songhai", "sq": "Albanian", "sr": "Serbian", "su": "Sundanese", "sv": "Swedish", "sw": "Swahili",
    "ta": "Tamil", "te": "Telugu", "th": "Thai", "tl": "Tagalog", "tlh": "Klingon", "tr": "Turkish", "tt": "Tatar",
    "twi": "Twi", "uk": "Ukrainian", "ur": "Urdu", "ve": "Venda", "vec": "Venetian", "vi": "Vietnamese",
    "wa": "Walloon", "wo": "Wolof", "xh": "Xhosa", "yi": "Yiddish", "zam": "Zapotec", "zh": "Chinese", "zu": "Zulu",
}  # fmt: skip


def language_name(code: str) -> str:
    """`German` for `de`, `Chinese (CN)` for `zh_CN`, the code itself if it has no name here."""
    if code in _NAMES:
        return _NAMES[code]
    for mark in "_-@":
        base, found, variant = code.partition(mark)
        if found and base in _NAMES:
            return f"{_NAMES[base]} ({variant})"
    return code


def is_language(code: str) -> bool:
    """Whether the code, or the part before its variant, is that of a known language."""
    return language_name(code) != code


def without_variant(code: str) -> str:
    """The language of a code without region, script or variant, in lower case: `pt` of `pt-BR`, `sr` of `sr@latin`."""
    return re.split("[-_@]", code)[0].lower()


def code_of(name: str) -> str | None:
    """`de` for `german` or `German`; None if no language has that English name."""
    return next((code for code, known in _NAMES.items() if known.lower() == name.lower()), None)


def meant_code(written: str) -> str:
    """The code that data mean: `de` for `DE` and `German`, `pt-BR` for `PT-BR`; what is neither stays as it is."""
    if is_language(written):
        return written
    plain = without_variant(written)
    lowered = plain + written[len(plain) :]
    return lowered if is_language(lowered) else code_of(written) or written


def html_language(code: str) -> str:
    """The code in the form of the HTML attribute `lang`: `sr-latin` for `sr@latin`."""
    return code.replace("_", "-").replace("@", "-")

"""What CLDR phrases are made of, and how English and French write it."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, cached_property
from typing import Any, Generic, TypeVar

import numpy as np

from minirnn.data.text import words
from minirnn.errors import MinirnnError

T = TypeVar("T")

FIRST_YEAR, YEARS = 1900, 200

UNITS = {
    "angle": ("degree",),
    "area": ("acre", "hectare", "square-kilometer", "square-meter"),
    "digital": ("byte", "gigabyte", "kilobyte", "megabyte"),
    "duration": ("century", "day", "decade", "hour", "minute", "month", "second", "week", "year"),
    "electric": ("ampere", "ohm", "volt"),
    "energy": ("joule", "kilocalorie", "kilowatt-hour"),
    "frequency": ("hertz", "megahertz"),
    "graphics": ("pixel",),
    "length": ("centimeter", "foot", "inch", "kilometer", "light-year", "meter", "mile", "millimeter", "nautical-mile", "yard"),
    "mass": ("gram", "kilogram", "milligram", "ounce", "pound", "tonne"),
    "power": ("horsepower", "kilowatt", "watt"),
    "pressure": ("bar", "hectopascal"),
    "speed": ("knot",),
    "temperature": ("celsius", "fahrenheit", "kelvin"),
    "volume": ("cubic-meter", "cup", "gallon", "liter", "milliliter", "pint", "tablespoon", "teaspoon"),
}
RATED = {
    "digital": ("megabyte",),
    "energy": ("kilocalorie",),
    "graphics": ("pixel",),
    "length": ("kilometer", "meter", "mile"),
    "mass": ("gram", "kilogram", "milligram"),
    "volume": ("liter", "milliliter"),
}
RATED_BY = {
    "area": ("hectare", "square-meter"),
    "duration": ("day", "hour", "minute", "second", "week"),
    "length": ("inch",),
    "mass": ("kilogram",),
    "volume": ("liter",),
}
STEPS = {"minute": 1, "hour": 60, "day": 24 * 60, "week": 7 * 24 * 60, "month": 30 * 24 * 60, "year": 365 * 24 * 60}  # in minutes
DATE_STYLES = ("full", "long", "medium", "full", "long", "yMd", "MMMMd")


@dataclass(frozen=True)
class Part:
    """Something that both languages can say.

    Args:
        english, french: how they say it.
        key: what it is about, sorted, whatever the form.
    """

    english: str
    french: str
    key: tuple[str, ...]

    @cached_property
    def words(self) -> tuple[list[str], list[str]]:
        """The words of both."""
        return words(self.english), words(self.french)


def distinct(parts: Iterable[Part]) -> list[Part]:
    """The parts that differ in their English words; where two agree in them, the first one's French counts."""
    found: dict[tuple[str, ...], Part] = {}
    for part in parts:
        found.setdefault(tuple(part.words[0]), part)
    return list(found.values())


class Deck(Generic[T]):
    """Draws from a collection at random, everything once before anything twice."""

    def __init__(self, cards: Iterable[T], rng: np.random.Generator):
        self._cards, self._rng = list(cards), rng
        self._order: list[int] = []

    def draw(self) -> T:
        if not self._order:
            self._order = self._rng.permutation(len(self._cards)).tolist()
        return self._cards[self._order.pop()]


class Parts:
    """Draws parts, and says them by the patterns of CLDR."""

    def __init__(self, rng: np.random.Generator):
        self._babel, self._emoji = _packages()
        self._locales = [self._babel.Locale(language) for language in ("en", "fr")]
        self._rng = rng
        # Where two kinds share an English name, the earlier kind's French counts.
        french: dict[str, str] = {}
        kinds = {}
        for kind, found in (
            ("territory", self._named("territories", self._locales[0].territories, r"[A-Z]{2}")),
            ("language", self._named("languages", self._babel.localedata.locale_identifiers(), r"[a-z]{2}")),
            ("script", self._named("scripts", self._scripts(), r"[A-Z][a-z]{3}")),
            ("emoji", self._emoji_names()),
        ):
            kinds[kind] = [part for part in found if french.setdefault(part.english.lower(), part.french.lower()) == part.french.lower()]
        self._all_names = distinct(part for found in kinds.values() for part in found)
        self._names = Deck(self._all_names, rng)
        self._territories, self._languages, self._scripts_ = (Deck(kinds[kind], rng) for kind in ("territory", "language", "script"))
        self._currencies = Deck(self._current_currencies(), rng)
        self._zones = Deck(self._zone_names(), rng)
        self._units, self._rated, self._rated_by = (Deck(_unit_names(units), rng) for units in (UNITS, RATED, RATED_BY))
        self._steps = Deck(STEPS, rng)
        self._pattern = cache(self._list_pattern)

    def names(self) -> list[Part]:
        """Every territory, language, script and emoji name, each English one once."""
        return self._all_names

    def versions(self) -> str:
        return f"Babel {self._babel.__version__} and emoji {self._emoji.__version__}"

    def name(self) -> Part:
        """Peru, Pérou, or Greek, grec, or hedgehog, hérisson"""
        return self._names.draw()

    def measure(self) -> Part:
        """12.5 kilometers, 12,5 kilomètres"""
        number, unit = self._number(), self._units.draw()
        return self._part(self._babel.units.format_unit, number, unit, key=(f"{number} {unit}",))

    def rate(self) -> Part:
        """12 megabytes per second, 12 mégaoctets par seconde"""
        number, unit, per = self._number(), self._rated.draw(), self._rated_by.draw()
        say = self._babel.units.format_compound_unit
        return self._part(
            lambda *of, locale: say(of[0], of[1], denominator_unit=of[2], locale=locale), number, unit, per, key=(f"{number} {unit}", per)
        )

    def amount(self) -> Part:
        """12.50 Swiss francs, 12,50 francs suisses"""
        number, currency = Decimal(self._whole()), self._currencies.draw()
        cents = self._chance(0.4)
        if cents:
            number += Decimal(self._integer(1, 99)) / 100
        say = self._babel.numbers.format_currency
        return self._part(
            lambda *of, locale: say(of[0], of[1], format_type="name", currency_digits=cents, locale=locale),
            number,
            currency,
            key=(f"{number} {currency}",),
        )

    def quantity(self) -> Part:
        """2.5 million, 2,5 millions"""
        number = self._integer(2, 99) * 1000 ** self._integer(1, 3)
        say = self._babel.numbers.format_compact_decimal
        return self._part(lambda n, locale: say(n, format_type="long", locale=locale), number, key=(str(number),))

    def relative(self) -> Part:
        """3 days ago, il y a 3 jours"""
        number, step = self._integer(1, 60), self._steps.draw()
        minutes = (1 if self._chance(0.5) else -1) * number * STEPS[step]
        say = self._babel.dates.format_timedelta
        return self._part(
            lambda m, s, locale: say(
                datetime.timedelta(minutes=m), granularity=s, threshold=float("inf"), add_direction=True, locale=locale
            ),
            minutes,
            step,
            key=(f"{minutes} {step}",),
        )

    def date(self) -> Part:
        """Tuesday, March 4, 1975, mardi 4 mars 1975"""
        day, style = self._day(), DATE_STYLES[self._integer(0, len(DATE_STYLES) - 1)]
        dates = self._babel.dates
        if style in ("full", "long", "medium"):
            return self._part(lambda d, s, locale: dates.format_date(d, s, locale=locale), day, style, key=(str(day),))
        said = str(day) if "y" in style else f"{day:%m-%d}"
        return self._part(lambda d, s, locale: dates.format_skeleton(s, d, locale=locale), day, style, key=(said,))

    def time(self) -> Part:
        """3:45 PM, 15:45"""
        time = datetime.time(self._integer(0, 23), self._integer(0, 59))
        say = self._babel.dates.format_time
        return self._part(lambda t, locale: say(t, "short", locale=locale), time, key=(f"{time:%H:%M}",))

    def zoned_time(self) -> Part:
        """3:45 PM Japan Standard Time, 15:45 heure normale du Japon"""
        time, zone = self.time(), self._zones.draw()
        return Part(f"{time.english} {zone.english}", f"{time.french} {zone.french}", _key(time, zone))

    def moment(self) -> Part:
        """March 4, 1975, 3:45 PM, 4 mars 1975, 15:45"""
        date, time = self.date(), self.time()
        english, french = (locale.datetime_formats["medium"] for locale in self._locales)
        return Part(english.format(time.english, date.english), french.format(time.french, date.french), _key(date, time))

    def interval(self) -> Part:
        """Mar 4 - 13, 1975, 4-13 mars 1975 (with en dashes)"""
        start = self._day()
        end = start + datetime.timedelta(days=self._integer(1, 90))
        say = self._babel.dates.format_interval
        return self._part(lambda a, b, locale: say(a, b, "yMMMd", locale=locale), start, end, key=(f"{start}/{end}",))

    def period(self) -> Part:
        """3rd quarter 1975, 3e trimestre 1975"""
        day = self._day()
        skeleton = "yMMMM" if self._chance(0.6) else "yQQQQ"
        say = self._babel.dates.format_skeleton
        said = f"{day:%Y-%m}" if skeleton == "yMMMM" else f"{day.year}-Q{(day.month + 2) // 3}"
        return self._part(lambda d, s, locale: say(s, d, locale=locale), day.replace(day=1), skeleton, key=(said,))

    def variety(self) -> Part:
        """French (Canada), français (Canada)"""
        language = self._languages.draw()
        where = (self._territories if self._chance(0.85) else self._scripts_).draw()
        return Part(f"{language.english} ({where.english})", f"{language.french} ({where.french})", _key(language, where))

    def listed(self, items: Sequence[Part], style: str) -> Part:
        """Peru, 3 days ago, or 12 kilometers"""
        english, french = self._pattern(style, len(items))
        return Part(english.format(*(i.english for i in items)), french.format(*(i.french for i in items)), _key(*items))

    def _list_pattern(self, style: str, count: int) -> tuple[str, ...]:
        """As `{0}, {1}, and {2}`."""
        places = [f"{{{i}}}" for i in range(count)]
        return tuple(self._babel.lists.format_list(places, style, locale) for locale in self._locales)

    def _part(self, say: Callable[..., str], *of: Any, key: tuple[str, ...]) -> Part:
        english, french = (say(*of, locale=locale) for locale in self._locales)
        return Part(english, french, key)

    def _integer(self, low: int, high: int) -> int:
        return int(self._rng.integers(low, high + 1))

    def _chance(self, probability: float) -> bool:
        return bool(self._rng.random() < probability)

    def _whole(self) -> int:
        return 50 * self._integer(2, 19) if self._chance(0.2) else self._integer(0, 99)

    def _number(self) -> Decimal:
        number = Decimal(self._whole())
        return number + Decimal(self._integer(1, 9)) / 10 if self._chance(0.25) else number

    def _day(self) -> datetime.date:
        year, day = self._integer(FIRST_YEAR, FIRST_YEAR + YEARS - 1), self._integer(0, 364)
        return datetime.date(year, 1, 1) + datetime.timedelta(days=day)

    def _named(self, kind: str, codes: Iterable[str], pattern: str) -> list[Part]:
        english, french = (getattr(locale, kind) for locale in self._locales)
        known = (code for code in sorted(codes) if re.fullmatch(pattern, code) and code in english and code in french)
        return [Part(english[code], french[code], (f"{kind} {code}",)) for code in known if _plain(english[code]) and _plain(french[code])]

    def _scripts(self) -> set[str]:
        """The scripts that tell apart the locales of some language."""
        return {code for name in self._babel.localedata.locale_identifiers() for code in name.split("_")[1:]}

    def _emoji_names(self) -> list[Part]:
        """Short names of emoji that are one character."""
        self._emoji.config.load_language("fr")
        found = []
        for character, data in sorted(self._emoji.EMOJI_DATA.items()):
            if len(character.replace("\ufe0f", "")) == 1 and data["status"] == self._emoji.STATUS["fully_qualified"] and "fr" in data:
                english, french = (data[language].strip(":").replace("_", " ") for language in ("en", "fr"))
                if _plain(english) and _plain(french) and len(english.split()) <= 3 and len(french.split()) <= 4:
                    found.append(Part(english, french, (f"emoji {character}",)))
        return found

    def _current_currencies(self) -> list[str]:
        """The money of today's countries."""
        say = self._babel.numbers.get_territory_currencies
        day = datetime.date(2020, 1, 1)
        codes = {code for territory in self._locales[0].territories for code in say(territory, start_date=day, end_date=day)}
        return [part.key[0].split()[1] for part in self._named("currencies", codes, r"[A-Z]{3}")]

    def _zone_names(self) -> list[Part]:
        english, french = (locale.meta_zones for locale in self._locales)
        found = []
        for zone in sorted(english):
            names = [dict(side[zone].get("long", {})) if zone in side else {} for side in (english, french)]
            for variant in sorted(names[0].keys() & names[1].keys()):
                pair = names[0][variant], names[1][variant]
                if all(map(_plain, pair)):
                    found.append(Part(*pair, (f"zone {zone} {variant}",)))
        return distinct(found)


def _key(*parts: Part) -> tuple[str, ...]:
    return tuple(sorted(key for part in parts for key in part.key))


def _unit_names(units: dict[str, tuple[str, ...]]) -> list[str]:
    """CLDR's names, as `length-kilometer`."""
    return [f"{kind}-{unit}" for kind, names in units.items() for unit in names]


def _plain(name: str) -> bool:
    """Whether a name is nothing but words."""
    return bool(re.fullmatch(r"[^\W\d_]+(?:[ '’-][^\W\d_]+)*", name))


def _packages() -> tuple[Any, Any]:
    try:
        import babel
        import babel.dates
        import babel.lists
        import babel.localedata
        import babel.numbers
        import babel.units
        import emoji
    except ImportError as error:
        raise MinirnnError(f"the data set cldr needs the package {error.name}: pip install minirnn[demo]") from None
    return babel, emoji

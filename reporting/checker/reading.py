"""Pure. Items to statements: which words of a clause belong to which finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from inference.findings import Presence
from reporting.checker.ambiguities import (
    TYING,
    find_either,
    find_list_traps,
    find_ties,
    find_unpaired,
    is_clashing,
    is_place_measured,
)
from reporting.checker.clauses import (
    INDEFINITE,
    MENTIONS,
    PREMODIFIERS,
    Clause,
    is_connector,
    split_clauses,
)
from reporting.checker.items import Item, read_items, split_sentences
from reporting.checker.lexicon import Entry, Form, Lexicon, Part, default_lexicon
from reporting.checker.modifiers import read_numbers, read_places
from reporting.checker.pairs import Phrase, drop_title, pair_in_order, split_pairs
from reporting.checker.statements import Context, Reading, Stated, StatedPlace, Statement

_HYPOTHETICAL: Final = frozenset({"if", "unless", "would", "in case", "should there", "assuming"})
_HISTORICAL: Final = frozenset(
    {"history", "previous", "previously", "prior", "status post", "former", "known"}
)
#: Words of certainty that go with the verb and so with the whole clause.
_VERBAL: Final = frozenset(
    {"may", "might", "could", "there may be", "there might be", "there could be", "suggests", "suggest"}
    | {"suggesting", "suggested", "may be", "might be", "could be", "may be present"}
)
_OPENING: Final = frozenset(
    {"whether", "whether or not", "present or absent", "presence or absence", "presence or absence of"}
    | {
        "the question of whether",
        "the question whether",
        "question whether",
        "the question of",
        "question of",
    }
    | {"can be made", "could be made", "can be drawn", "could be drawn", "was made", "was drawn"}
    | {"can be given", "could be given", "was reached", "could be reached"}
)
#: What a part of a sentence after a semicolon may hold that only gives sizes.
_MEASURING: Final = frozenset(
    {Part.QUANTITY, Part.FILLER, Part.NUMBER, Part.UNIT, Part.TIMES, Part.MARK, Part.CONNECTOR, Part.ARTICLE}
    | {Part.FINITE}
)
#: What follows the number of a finding: «nodule 2 lies».
_AFTER_INDEX: Final = frozenset({":", "lies", "measures"})
_LOOKED: Final = frozenset(
    {
        "seen",
        "detected",
        "identified",
        "demonstrated",
        "found",
        "shown",
        "observed",
        "visualized",
        "appreciated",
    }
    | {"recognized", "discerned", "made out", "noted", "depicted", "noticed", "revealed", "displayed"}
    | {"perceived", "spotted", "picked up"}
)
_LEVELS: Final = frozenset({Stated.LOW.value, Stated.MODERATE.value, Stated.HIGH.value})
_POLAR: Final = frozenset({Part.NEGATION, Part.DENIAL, Part.UNDETERMINED, Part.PSEUDO, Part.ELSEWHERE})
_DEFINITE: Final = frozenset({"the", "this", "these"})
_FURTHER: Final = frozenset({"another", "a further", "one further", "a second", "a third", "further"})


def extract_statements(text: str, lexicon: Lexicon | None = None) -> tuple[Statement, ...]:
    """Return what any text states about findings, by the lexicon and the rules alone.

    Parameters
    ----------
    text : str
        One sentence or several; words that the lexicon lacks are passed over.
    """
    statements = read_text(text, lexicon or default_lexicon()).statements
    return tuple(statement for statement in statements if not statement.is_pronoun)


def read_text(
    text: str, lexicon: Lexicon, names: Sequence[str] = (), cited: frozenset[str] | None = None
) -> Reading:
    """Return what a text states, and what in it cannot be read (parameters: `read_items`)."""
    return read_statements(read_items(text, lexicon, names, cited))


def read_statements(items: Sequence[Item]) -> Reading:
    """Return what the items of a text state."""
    statements: list[Statement] = []
    unclear: list[str] = []
    stray = severe = 0
    for sentence in split_sentences(items):
        severe += sum(_is_severe(sentence, index) for index in range(len(sentence)))
        reading = _read_sentence(sentence)
        unclear += reading.unclear
        stray += reading.stray_numbers
        for statement in reading.statements:
            if statement.is_pronoun and statements:
                joined = _join(statements, statement)
                if joined is None:
                    unclear.append("it is not said which of several findings a pronoun means")
                else:
                    statements[-1] = joined
            else:
                statements.append(statement)
    return Reading(
        statements=tuple(statements),
        unclear=tuple(unclear),
        stray_numbers=stray,
        severe_marks=severe,
        is_disagreement=any(item.part is Part.DISAGREEMENT for item in items),
    )


def _join(statements: Sequence[Statement], pronoun: Statement) -> Statement | None:
    """Return the last statement with what a pronoun adds to it."""
    last = statements[-1]
    if pronoun.count not in {None, 1}:
        return None
    if len(statements) > 1 and statements[-2].presence is last.presence is Presence.PRESENT:
        is_same_kind = statements[-2].concepts == last.concepts
        if not is_same_kind and not pronoun.sizes:
            return None
    if pronoun.presence is not last.presence:
        return None
    certainty = pronoun.certainty if last.certainty in {Stated.PLAIN, Stated.ATTRIBUTED} else last.certainty
    if pronoun.certainty not in {Stated.PLAIN, Stated.ATTRIBUTED, certainty}:
        return None
    if pronoun.certainty is Stated.PLAIN:
        certainty = last.certainty
    return replace(
        last,
        places=(*last.places, *pronoun.places),
        sizes=(*last.sizes, *pronoun.sizes),
        certainty=certainty,
        probability=last.probability or pronoun.probability,
    )


def _is_severe(items: Sequence[Item], index: int) -> bool:
    """Say whether «marked» stands before what it would call severe."""
    if items[index].text != "marked" or index + 1 >= len(items):
        return False
    is_done = index > 0 and items[index - 1].part in {Part.ALGORITHM, Part.NAME}
    return not is_done and items[index + 1].part in {
        Part.CONCEPT,
        Part.GENERIC,
        Part.SIDE,
        Part.SITE,
        Part.ZONE,
        Part.CERTAINTY,
    }


def _read_sentence(sentence: Sequence[Item]) -> Reading:
    if sentence[-1].part is Part.ELSEWHERE:
        return _read_elsewhere(sentence[:-1])
    if len(sentence) > 3 and sentence[-2].part is Part.ELSEWHERE and sentence[-3].text == "(":  # noqa: PLR2004
        return _read_elsewhere(sentence[:-3])
    statements: list[Statement] = []
    unclear: list[str] = []
    stray = 0
    title = _title_of(sentence)
    for clause in split_clauses(_join_list(sentence)):
        if clause.has_mention:
            found, problems, numbers = _read_clause(clause)
            statements += found
        elif clause.has_pronoun or not statements:
            one, problems, numbers = _read_bare(clause, None)
            statements += one
        elif title is not None:
            one, problems, numbers = _read_bare(clause, title)
            statements += one
        elif _is_of_sizes(clause) and _is_about_one(statements):
            one, problems, numbers = _read_bare(clause, None)
            statements += one
        else:
            one, problems, numbers = _read_bare(clause, None)
            if any(_says_something(statement) for statement in one) or clause.negations or _claims(clause):
                problems = [*problems, "a part of the sentence has no finding of its own"]
        unclear += problems
        stray += numbers
    return Reading(statements=tuple(statements), unclear=tuple(unclear), stray_numbers=stray)


def _read_elsewhere(sentence: Sequence[Item]) -> Reading:
    """Return the reading of a sentence at whose end another algorithm is said not to have found the same."""
    end = len(sentence)
    while end and (
        is_connector(sentence[end - 1])
        or sentence[end - 1].part is Part.BREAK
        or sentence[end - 1].text in {"which", "that"}
    ):
        end -= 1
    reading = _read_sentence(sentence[:end]) if end else Reading(statements=())
    told = [one for one in reading.statements if one.presence is Presence.PRESENT and not one.is_pronoun]
    if len(told) != 1 or len(reading.statements) != 1 or not told[0].concepts:
        why = "it is not said what another algorithm did not find"
        return replace(reading, unclear=(*reading.unclear, why))
    denied = Statement(concepts=told[0].concepts, presence=Presence.ABSENT)
    return replace(reading, statements=(*told, denied))


def _is_about_one(statements: Sequence[Statement]) -> bool:
    """Say whether a sentence has told of one finding that is there, and of nothing else."""
    named = [statement for statement in statements if not statement.is_pronoun]
    return len(named) == 1 and named[0].presence is Presence.PRESENT and statements[0] is named[0]


def _is_of_sizes(clause: Clause) -> bool:
    """Say whether a clause gives sizes and nothing else."""
    is_bare = all(item.part in _MEASURING or item.value in _LEVELS for item in clause.items)
    has_level = any(item.part is Part.CERTAINTY for item in clause.items)
    return is_bare and (has_level or bool(read_numbers(clause.items).sizes))


def _join_list(sentence: Sequence[Item]) -> Sequence[Item]:
    """Return a sentence with «and» for semicolons where a title leads them: «nodules: right; left»."""
    end = next((index for index, item in enumerate(sentence) if item.text == ":"), 0)
    head, rest = sentence[:end], sentence[end:]
    mentions = [index for index, item in enumerate(sentence) if item.part in MENTIONS]
    is_counting = len(mentions) == 1 and mentions[0] == end - 1 and sentence[end - 1].entry.form is Form.MANY
    is_denying = any(item.part is Part.DENIAL for item in head) and not any(
        item.part in MENTIONS for item in head
    )
    polar = _POLAR if is_denying else _POLAR - {Part.DENIAL}
    is_plain = not any(item.part in polar or item.part is Part.FINITE for item in rest)
    if is_denying:  # «not seen: mass and effusion; nodule» may go on to what is seen
        is_plain = is_plain and not any(is_connector(item) for item in rest)
    is_led = is_denying or (is_counting and not any(item.part in _POLAR for item in sentence))
    if not is_led or not is_plain:
        return sentence
    joint = Entry(part=Part.CONNECTOR, value="and")
    return [replace(item, entry=joint) if item.text == ";" else item for item in sentence]


def _claims(clause: Clause) -> bool:
    """Say whether a clause says of something that it is there or was found."""
    return any(item.part in {Part.AFFIRMATION, Part.ATTRIBUTION, Part.FINITE} for item in clause.items)


def _says_something(statement: Statement) -> bool:
    return bool(
        statement.places or statement.sizes or statement.count or statement.certainty is not Stated.PLAIN
    )


def _title_of(sentence: Sequence[Item]) -> Item | None:
    """Return the finding that a sentence has as its title: «Nodule 2: ...»."""
    for index, item in enumerate(sentence[:4]):
        if item.text == ":" and index > 0:
            title = next((one for one in sentence[:index] if one.part is Part.CONCEPT), None)
            others = [one for one in sentence[:index] if one.part not in {Part.CONCEPT, Part.NUMBER}]
            return None if others else title
    return None


def _read_bare(clause: Clause, title: Item | None) -> tuple[list[Statement], list[str], int]:
    """Return what a clause without a finding of its own says of the one before it, or of the title."""
    if title is None and not clause.has_pronoun and not _has_content(clause):
        return [], [], read_numbers(clause.items).stray
    numbers = read_numbers(clause.items)
    presence, problems = _presence_of(clause)
    is_empty = not numbers.sizes and not read_places(clause.items)
    if title is None and is_empty and any(item.part is Part.AFFIRMATION for item in clause.items):
        problems = [*problems, "a finding is affirmed a second time"]
    statement = Statement(
        concepts=title.entry.concepts if title else (),
        presence=presence,
        places=read_places(clause.items),
        certainty=_clause_certainty(clause, clause.items),
        sizes=numbers.sizes,
        form=title.entry.form if title else Form.ONE,
        count=numbers.count,
        probability=numbers.probability,
        algorithm=_algorithm_of(clause.items),
        context=_context_of(clause.items),
        is_pronoun=title is None,
    )
    return [statement], problems, numbers.stray


def _has_content(clause: Clause) -> bool:
    parts = {Part.SIDE, Part.SITE, Part.ZONE, Part.NUMBER, Part.COUNT, Part.CERTAINTY}
    return any(item.part in parts for item in clause.items)


def _read_clause(clause: Clause) -> tuple[list[Statement], list[str], int]:
    phrases, problems = _split_phrases(clause.items)
    if _is_equation(clause):
        problems.append("one finding is said to be another")
    presence, doubts = _presence_of(clause)
    problems += [*doubts, *find_ties(clause.items)]
    if presence is Presence.ABSENT and clause.is_led:
        problems += find_list_traps(phrases)
    statements: list[Statement] = []
    stray = 0
    algorithm, context = _algorithm_of(clause.items), _context_of(clause.items)
    shared = _clause_certainty(clause, [item for phrase in phrases for item in phrase.after])
    carried: Stated | None = None
    for index, phrase in enumerate(phrases):
        own = _own_certainty(phrase.before)
        is_bare = index > 0 and not phrase.before
        carried = own if own is not None else (carried if is_bare else None)
        certainty = shared if carried is None else _combine(carried, shared)
        if certainty is None or is_clashing([*phrase.before, *phrase.after]):
            problems.append("two words of certainty do not agree")
            certainty = shared
        if is_place_measured(phrase.before):
            problems.append("a size is given to a place")
        for part in split_pairs(phrase) or (phrase,):
            statement, left = _state(part, presence, certainty)
            is_split = part is not phrase
            counted = replace(statement, form=Form.ONE, count=None) if is_split else statement
            statements.append(replace(counted, algorithm=algorithm, context=context))
            stray += left
    is_paired = len(statements) > len(phrases)
    spread = statements if is_paired else _distribute(statements, phrases)
    in_order = None if is_paired else pair_in_order(spread, phrases)
    problems += find_unpaired(clause.items, is_paired=is_paired, is_in_order=in_order is not None)
    return in_order or (spread if is_paired else drop_title(spread, phrases)), problems, stray


def _is_equation(clause: Clause) -> bool:
    """Say whether a clause says what a pronoun is: «it may be an effusion»."""
    if any(item.part is Part.UNDETERMINED for item in clause.items):
        return False
    return any(
        item.part is Part.PRONOUN and after.part in {Part.FINITE, Part.CERTAINTY, Part.AFFIRMATION}
        for item, after in pairwise(clause.items)
    )


def _state(phrase: Phrase, presence: Presence, certainty: Stated) -> tuple[Statement, int]:
    after, index = _take_index(phrase.after)
    if presence is Presence.ABSENT:  # «no effusion bilaterally»: on neither side
        after = tuple(item for item in after if item.text != "bilaterally")
    numbers = read_numbers([*phrase.before, phrase.mention, *after])
    places = read_places([*phrase.before, *after])
    statement = Statement(
        concepts=phrase.mention.entry.concepts,
        presence=presence,
        places=places,
        common=read_places(_premodifiers(phrase.before)),
        certainty=certainty,
        sizes=numbers.sizes,
        form=_form_of(phrase),
        count=numbers.count,
        index=index,
        probability=numbers.probability,
        is_scoped=any(item.part is Part.SCOPE for item in after),
        is_definite=any(item.text in _DEFINITE for item in phrase.before),
        is_further=_is_further(phrase.before),
    )
    return statement, numbers.stray


def _form_of(phrase: Phrase) -> Form:
    """Return whether one is told or several; a noun that is not counted is one with an article before it."""
    form = phrase.mention.entry.form
    is_one = form is Form.MASS and any(item.text in INDEFINITE for item in _premodifiers(phrase.before))
    return Form.ONE if is_one else form


def _premodifiers(before: Sequence[Item]) -> Sequence[Item]:
    """Return the words right before a finding, unless they are the end of a list."""
    start = len(before)
    while start and before[start - 1].part in PREMODIFIERS:
        start -= 1
    return [] if start and before[start - 1].part is Part.CONNECTOR else before[start:]


def _is_further(before: Sequence[Item]) -> bool:
    """Say whether a finding is told as one more: «another nodule», and not «another algorithm»."""
    return any(
        item.text in _FURTHER and after.part not in {Part.ALGORITHM, Part.NAME}
        for item, after in pairwise([*before, *before[-1:]])
    )


def _take_index(after: Sequence[Item]) -> tuple[tuple[Item, ...], int | None]:
    """Return the items after a title without its number, and that number: «Nodule 2: ...»."""
    is_indexed = (
        len(after) > 1
        and after[0].part is Part.NUMBER
        and after[0].value.isdigit()
        and (after[1].part is Part.FINITE or after[1].text in _AFTER_INDEX)
    )
    return (tuple(after[1:]), int(after[0].value)) if is_indexed else (tuple(after), None)


def _split_phrases(items: Sequence[Item]) -> tuple[list[Phrase], list[str]]:
    """Return each finding of a clause with its items: those after the last connector go with the next."""
    spots = [index for index, item in enumerate(items) if item.part in MENTIONS]
    problems: list[str] = []
    bounds = [0]
    for left, right in pairwise(spots):
        cut = right
        while cut > left + 1 and (items[cut - 1].part in PREMODIFIERS or _is_measure_of(items, cut - 1)):
            cut -= 1
        if (
            cut == left + 1
            and right > left + 1
            and not any(is_connector(one) for one in items[left + 1 : right])
        ):
            problems.append("two findings stand side by side")
        elif not any(is_connector(one) for one in items[left + 1 : right]) and not _is_title(
            items, left, right
        ):
            problems.append("two findings are tied by no connector")
        bounds.append(cut)
    bounds.append(len(items))
    phrases = [
        Phrase(
            mention=items[spot],
            before=tuple(items[bounds[number] : spot]),
            after=tuple(items[spot + 1 : bounds[number + 1]]),
        )
        for number, spot in enumerate(spots)
    ]
    return phrases, problems


def _is_title(items: Sequence[Item], left: int, right: int) -> bool:
    """Say whether a finding counts those after it: «two nodules: one nodule ...»."""
    is_led_to = any(item.text == ":" for item in items[left + 1 : right])
    is_same = items[left].entry.concepts == items[right].entry.concepts
    is_heading = items[left].text in {"finding", "findings", "abnormalities"} and not any(
        item.part in MENTIONS for item in items[:left]
    )
    return is_led_to and (is_heading or (is_same and items[left].entry.form is Form.MANY))


def _is_measure_of(items: Sequence[Item], index: int) -> bool:
    """Say whether a word ties a size to the finding after it: «12 mL for the brain»."""
    return items[index].text == "for" and items[index - 1].part is Part.UNIT


def _distribute(statements: Sequence[Statement], phrases: Sequence[Phrase]) -> list[Statement]:
    """Return statements; a place said of a whole list holds for each of it: «right nodule and mass»."""
    spread = list(statements)
    for index in range(1, len(spread)):
        if not phrases[index].before and not spread[index].places and not phrases[index].after:
            first = read_places(phrases[index - 1].before) or (
                spread[index - 1].places if spread[index - 1].is_listed else ()
            )
            if first:
                spread[index] = replace(spread[index], places=_sides_of(first), is_listed=True)
    for index in range(len(spread) - 2, -1, -1):
        following = spread[index + 1]
        has_own = spread[index].places or any(not is_connector(item) for item in phrases[index].after)
        if not has_own and following.places and read_places(phrases[index + 1].after):
            spread[index] = replace(
                spread[index], places=_sides_of(read_places(phrases[index + 1].after)), is_listed=True
            )
    return spread


def _sides_of(places: Sequence[StatedPlace]) -> tuple[StatedPlace, ...]:
    return tuple(replace(place, site=None) for place in places if place.side or place.zone)


def _presence_of(clause: Clause) -> tuple[Presence, list[str]]:
    is_open = any(item.part is Part.UNDETERMINED for item in clause.items)
    is_twice = clause.negations > 1 or (is_open and clause.negations > 0)
    problems = ["a sentence denies twice"] if is_twice else []
    if not is_open and any(item.text in _OPENING for item in clause.items):
        problems.append("«whether» leads to nothing")
    problems += find_either(clause, is_there=not is_open and not clause.negations)
    if is_open:
        return Presence.UNDETERMINED, problems
    return (Presence.ABSENT if clause.negations % 2 else Presence.PRESENT), problems


def _own_certainty(before: Sequence[Item]) -> Stated | None:
    own = [item for item in before if item.part is Part.CERTAINTY and not _is_verbal(item)]
    return _strongest(own) if own else None


def _clause_certainty(clause: Clause, after: Sequence[Item]) -> Stated:
    plain = _find_undoubted(clause)
    told = [item for item in clause.items if item.part is Part.CERTAINTY and item.position not in plain]
    verbal = [item for item in told if _is_verbal(item)]
    behind = [item for item in after if item.part is Part.CERTAINTY and item.position not in plain]
    if verbal or behind:
        return _strongest([*verbal, *behind])
    is_attributed = any(item.part is Part.ATTRIBUTION for item in clause.items)
    is_affirmed = any(item.part is Part.AFFIRMATION for item in clause.items)
    return Stated.ATTRIBUTED if is_attributed and not is_affirmed else Stated.PLAIN


def _find_undoubted(clause: Clause) -> set[int]:
    """Return where words of certainty say none: «no mass could be seen», «no statement on it is possible»."""
    found = set()
    is_led = is_open = False
    for item, after in pairwise([*clause.items, clause.items[-1]]):
        is_led = is_led or item.part is Part.NEGATION
        is_open = is_open or (item.part is Part.UNDETERMINED and item.text.startswith("no "))
        is_seen = is_led and item.text == "could be" and after.text in _LOOKED
        if is_seen or (is_open and item.text in {"is possible", "was possible", "possible"}):
            found.add(item.position)
    return found


def _is_verbal(item: Item) -> bool:
    words = item.text.split()
    return item.text in _VERBAL or not TYING.isdisjoint(words) or words[:2] == ["it", "is"]


def _strongest(items: Sequence[Item]) -> Stated:
    """Return what words of certainty say together: a stated level before a general word."""
    values = {Stated(item.value) for item in items}
    for level in (Stated.HIGH, Stated.MODERATE, Stated.LOW, Stated.WEAK, Stated.PROBABLE, Stated.POSSIBLE):
        if level in values:
            return level
    return Stated.PLAIN


def _algorithm_of(items: Sequence[Item]) -> str | None:
    return next((item.value for item in items if item.part is Part.NAME), None)


def _combine(own: Stated, shared: Stated) -> Stated | None:
    """Return what the certainty of a finding and that of its clause say together; None if they clash."""
    if shared in {Stated.PLAIN, Stated.ATTRIBUTED, own}:
        return own
    pair = {own, shared}
    if Stated.POSSIBLE in pair and Stated.HIGH not in pair:
        return (pair - {Stated.POSSIBLE}).pop()
    return None


def _context_of(items: Sequence[Item]) -> Context:
    texts = {item.text for item in items}
    if _HYPOTHETICAL & texts:
        return Context.HYPOTHETICAL
    return Context.HISTORICAL if _HISTORICAL & texts else Context.CURRENT

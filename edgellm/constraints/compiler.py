"""Options that say what a text may be, made into constraints: checked, limited, and kept for the next call."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import accumulate
from math import lcm
from threading import Lock
from typing import Any, TypeVar

from edgellm.constraints.matcher import Grammar, reason
from edgellm.constraints.vocabulary import Vocabulary, llguidance
from edgellm.decoding.constraint import Constraint
from edgellm.decoding.options import GenerationOptions
from edgellm.errors import OptionError
from edgellm.text.tokenizer import Tokenizer, no_tokenizer

KEPT = 32  # compiled constraints
T = TypeVar("T")
STACK_LOCK = Lock()
Asked = tuple[str, str | tuple[str, ...]]  # an option's name and value

# What a constraint may cost. Most that explode are stopped by llguidance's limits: these are lower than its own where
# its own take more than a second. What it has no limit for is checked here.
MAX_TEXT = 2**18  # characters
MAX_MULTIPLE = 50_000  # states of an automaton that counts remainders
STACK = 2**28  # bytes: llguidance follows rules and references by recursion, and a stack that is full ends the process
MAX_RULES = 500  # of a grammar, for that reason, times one more than brackets in one another: what is wrong inside of
# them is told at each level, in a message that grows
MAX_REFERENCES = 250  # of a schema, too
MAX_PATTERNS = 100  # of one patternProperties, each compared with each
LIMITS = {
    "initial_lexer_fuel": 300_000,
    "max_grammar_size": 20_000,
    "step_max_items": 20_000,
    "max_lexer_states": 50_000,
    "verbose_errors": False,
}

# JSON is written as Python's json.dumps does, so that nothing but the values is left to choose; a schema may say
# otherwise with "x-guidance".
SPACES = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
SURROGATE = re.compile("[\ud800-\udfff]")
RULE = re.compile(r'^\s*[?!]?\w[^:"/]*:', re.MULTILINE)
REFERENCE = re.compile(r'"\$ref"\s*:\s*("[^"]*")')
JOINING = re.compile(r'"(allOf|anyOf|oneOf|\$ref)"')  # keywords by which several schemas hold for one value
MULTIPLE = re.compile(r'"multipleOf"\s*:\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?)')


class Constraints:
    """Those of one model, whose sessions share them. For several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._compiler: Compiler | None = None
        self._compiled: OrderedDict[Asked, Constraint] = OrderedDict()  # the last used last

    def of(self, options: GenerationOptions, tokenizer: Tokenizer | None, vocab_size: int) -> Constraint | None:
        """What the options ask for, None where a text may be anything. Raises OptionError, InputError without a
        tokenizer, or MissingDependencyError."""
        asked = options.constraint
        if asked is None:
            return None
        if tokenizer is None:
            raise no_tokenizer(why=f"{asked[0]} is about text", instead="leave it out")
        with self._lock:
            if asked not in self._compiled:
                self._compiler = self._compiler or Compiler(Vocabulary(tokenizer, vocab_size))
                self._compiled[asked] = self._compiler.constraint(*asked)
            self._compiled.move_to_end(asked)
            while len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
            return self._compiled[asked]


class Compiler:
    """Of one vocabulary, which llguidance has put into a trie: that takes a moment."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        library = llguidance()
        self._vocabulary = vocabulary
        self._tokenizer = library.LLTokenizer(vocabulary)
        self._matcher = library.LLMatcher
        self._limits = library.LLParserLimits(**LIMITS)

    def constraint(self, name: str, value: str | tuple[str, ...]) -> Constraint:
        """Raises OptionError where llguidance refuses it, it is too large, or it allows no text of this vocabulary."""
        _check_text(name, value)
        _check_multiples(name, value)
        _check_counts(name, value)
        grammar = _grammar(name, value)
        matcher = _on_a_large_stack(lambda: self._matcher(self._tokenizer, grammar, log_level=0, limits=self._limits))
        if matcher.is_error():
            raise OptionError(f"{name} cannot be used: {reason(matcher.get_error())}")
        constraint = Grammar(matcher, self._vocabulary)
        try:
            constraint.probe()
        except OptionError as error:
            raise OptionError(f"{name} cannot be used: {error}") from error
        return constraint


def _on_a_large_stack(work: Callable[[], T]) -> T:
    """What `work` returns, which must not raise, from a thread of its own. Memory follows what it uses of the stack."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    with STACK_LOCK:
        before = threading.stack_size(STACK)  # of all threads that begin until it is set back, which harms none
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    return found[0]


def _grammar(name: str, value: Any) -> str:
    """As llguidance reads it."""
    matcher = llguidance().LLMatcher
    if name == "json_schema":
        try:
            return str(matcher.grammar_from_json_schema(value, defaults=SPACES))
        except ValueError as error:
            raise OptionError(f"{name} cannot be used: {error}") from error
    if name == "regex":
        return str(matcher.grammar_from_regex(value))
    if name == "choices":
        value = "start: CHOICE\nCHOICE: " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in value)
    return str(matcher.grammar_from_lark(value))


def _check_text(name: str, value: str | tuple[str, ...]) -> None:
    text = value if isinstance(value, str) else "".join(value)
    if len(text) > MAX_TEXT:
        raise OptionError(f"{name} has {len(text)} characters, expected at most {MAX_TEXT}")
    if found := SURROGATE.search(text):
        raise OptionError(f"{name} holds a lone surrogate, U+{ord(found[0]):04X}, which is no character; leave it out")


def _check_counts(name: str, value: str | tuple[str, ...]) -> None:
    if not isinstance(value, str) or name == "regex":
        return
    rules = len(RULE.findall(value)) if name == "grammar" else 0
    references = len(set(REFERENCE.findall(value)))
    patterns = max(_patterns(json.loads(value)), default=0) if name == "json_schema" else 0
    found = {"rules, times brackets in one another": (rules * (1 + _brackets(value)), MAX_RULES)}
    found["different $ref"] = (references, MAX_REFERENCES)
    found["patterns in patternProperties"] = (patterns, MAX_PATTERNS)
    if problems := [
        f"{count} {what}, expected at most {most}" for what, (count, most) in found.items() if count > most
    ]:
        raise OptionError(f"{name} has {'; '.join(problems)}")


def _brackets(text: str) -> int:
    """How many are open at once, at most."""
    steps = ((letter == "(") - (letter == ")") for letter in text)
    return max(0, *accumulate(steps, lambda depth, step: max(0, depth + step), initial=0))


def _patterns(schema: Any) -> Iterator[int]:
    """The number of patterns of each patternProperties."""
    pending = [schema]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            yield len(part.get("patternProperties") or ()) if isinstance(part.get("patternProperties"), dict) else 0
        pending += part.values() if isinstance(part, dict) else part if isinstance(part, list) else []


def _check_multiples(name: str, value: str | tuple[str, ...]) -> None:
    """llguidance counts remainders of "multipleOf" in as many states as there are, and of several that hold for one
    number in those of their least common multiple; but for powers of ten, which it knows by their zeros."""
    if not isinstance(value, str):
        return
    numbers = [_without_point(Decimal(number)) for number in MULTIPLE.findall(value)]
    states = lcm(*numbers) if JOINING.search(value) else max(numbers, default=1)
    if states > MAX_MULTIPLE and str(states).rstrip("0") != "1":
        raise OptionError(
            f"multipleOf in {name} asks for multiples of {states} (digits alone; of all its numbers together, where "
            f"keywords join schemas), expected at most {MAX_MULTIPLE} or a power of ten; leave it out, check texts"
        )


def _without_point(number: Decimal) -> int:
    """12.50 is 125, and 1200 is 1200."""
    plain = number.normalize()
    exponent = plain.as_tuple().exponent
    assert isinstance(exponent, int)
    return max(1, int(plain.scaleb(max(0, -exponent))))

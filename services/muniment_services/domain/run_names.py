"""Names for runs that came without one: adjective-noun-number, easy to say and to tell apart."""

from __future__ import annotations

from collections.abc import Callable

ADJECTIVES = (
    "agile amber ample apt astute azure balmy bold brave breezy brisk candid calm civil "
    "clever cosmic crisp curious dapper daring deft eager earnest fair famed fond frank fresh "
    "gentle glad golden grand hardy hearty honest humble jolly keen kind lively lucid lucky "
    "mellow merry mighty modest neat nimble noble placid plucky polite proud quick quiet "
    "rapid rustic serene sharp silent sincere sleek smooth snug solid spry steady stellar "
    "sturdy sunny swift tidy tranquil trusty upbeat vivid warm wise witty zesty"
).split()
NOUNS = (
    "badger beetle bison bittern bream cardinal chough civet condor coot crane cricket curlew "
    "dace dingo dormouse eland falcon ferret finch gannet gecko gibbon goshawk grebe grouse "
    "gull hare harrier heron hoopoe ibex jackdaw jay kestrel kite lark linnet lynx magpie "
    "marmot marten merlin mink mole newt nuthatch ocelot oriole osprey otter perch petrel "
    "pika pipit plover puffin quail raven redstart robin roe rook sable salmon seal shrew "
    "siskin snipe sparrow starling stoat swan tapir teal tern thrush toad trout vole wagtail "
    "walrus weasel wombat wren"
).split()


def random_run_name(random: Callable[[int], bytes]) -> str:
    """A name such as `brisk-otter-417`. random: gives so many random bytes."""
    draw = int.from_bytes(random(6), "big")
    draw, number = divmod(draw, 1000)
    draw, noun = divmod(draw, len(NOUNS))
    return f"{ADJECTIVES[draw % len(ADJECTIVES)]}-{NOUNS[noun]}-{number}"

"""A scenario is what one client does alone: a function of a `Stage`, under a name, for a language."""

import asyncio
import itertools
import time
from dataclasses import dataclass

from .driver import Failure, Refused, Session
from .report import FAILED, PASSED, SKIPPED, Row
from .values import same, short

LONGEST = 40.0  # seconds a scenario may take
SCENARIOS = []


class Skip(Exception):
    """A scenario found that it cannot be played here; the text says why."""


@dataclass(frozen=True)
class Scenario:
    language: str
    title: str
    needs: tuple
    play: object


def scenario(language, title, needs=()):
    def add(play):
        SCENARIOS.append(Scenario(language, title, tuple(needs), play))
        return play
    return add


class Stage:
    """What a scenario acts on. Names made here are new in every run, so runs do not disturb each other."""

    run = f"{int(time.time() * 1000):x}"
    serial = itertools.count(1)

    def __init__(self, client, driver, options):
        self.client, self.driver, self.options = client, driver, options
        self.sessions, self.at = [], "start"

    def name(self, word):
        return f"conformance.{self.run}.n{next(self.serial)}.{word}"

    def step(self, text):
        self.at = text

    async def connect(self, **extra):
        session = Session(self.client, self.driver)
        self.sessions.append(session)
        return await session.connect(**self.options.logins(self.client), **extra)

    def can(self, feature):
        return feature not in self.client.lacks

    def equal(self, got, wanted, what):
        if not same(got, wanted):
            raise Failure(f"{what} is {short(got)}, wanted {short(wanted)}")

    def true(self, condition, what):
        if not condition:
            raise Failure(what)

    async def refused(self, doing, what):
        try:
            got = await doing
        except Refused as refusal:
            return refusal
        raise Failure(f"{what} was not refused: {short(got)}")

    async def clear(self):
        for session in self.sessions:
            await session.close()
            session.forget()


async def play(scenario, client, driver, options):
    """One row."""
    began = time.monotonic()

    def row(result, why=""):
        return Row.of(client, driver, scenario.title, result, why, time.monotonic() - began)

    for need in scenario.needs:
        if need in client.lacks:
            return row(SKIPPED, client.lacks[need])
    stage = Stage(client, driver, options)
    try:
        await asyncio.wait_for(scenario.play(stage), LONGEST)
        return row(PASSED)
    except Skip as skip:
        return row(SKIPPED, str(skip))
    except asyncio.TimeoutError:
        return row(FAILED, f"{stage.at}: not done within {LONGEST:g} s")
    except Failure as failure:
        return row(FAILED, f"{stage.at}: {failure}")
    except Exception as error:
        return row(FAILED, f"{stage.at}: {type(error).__name__}: {error}")
    finally:
        await stage.clear()

"""The page at /, in a browser: what it shows, what it keeps, and what it cannot be made to do."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import expect, sync_playwright

from conftest_of_server import ENDLESS, LONG, PackageMaker, Server
from edgellm.server import ServerSettings

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")


def test_the_page_takes_nothing_from_elsewhere(server: Server) -> None:
    response = server.http.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert len(re.findall(r"'sha256-[\w+/=]{44}'", policy)) == 2
    assert not re.findall(r"""(?:src|href)=["'](?!\$)""", response.text), "no file besides"
    assert "innerHTML" not in response.text, "nothing of an answer is HTML"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    contexts: list[Any] = []

    def opened(server: Server, **options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(15_000)
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
        page.goto(server.url)
        return page

    yield opened
    for context in contexts:
        context.close()


def say(page: Any, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_label("Message", exact=True).press("Enter")


def wait(page: Any) -> None:
    page.get_by_text("The answer is complete.").wait_for()


def set_limit(page: Any, tokens: int) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Most new tokens").fill(str(tokens))
    page.get_by_label("Temperature").fill("0")
    page.get_by_role("button", name="Done").click()


@needs_browser
def test_a_conversation(server: Server, open_page: Callable[..., Any]) -> None:
    page = open_page(server)
    set_limit(page, 12)
    say(page, "hello")
    wait(page)
    answers = page.locator("article.assistant")
    assert answers.count() == 1
    assert re.fullmatch(r"12 tokens, [\d.]+ tokens/s", answers.locator(".speed").inner_text())
    first = answers.locator(".body").inner_text()
    page.get_by_role("button", name="Regenerate").click()
    wait(page)
    assert answers.locator(".body").inner_text() == first, "greedy"
    say(page, "and more")
    expect(page.locator("article")).to_have_count(4)
    wait(page)
    page.reload()
    expect(page.locator("article")).to_have_count(4)
    page.get_by_role("button", name="Edit").first.click()
    assert page.get_by_label("Message", exact=True).input_value() == "hello"
    assert page.locator("article").count() == 0
    assert page.problems == []


@needs_browser
def test_an_answer_is_stopped(make_package: PackageMaker, open_page: Callable[..., Any]) -> None:
    """One that would take long, as a browser may be slow to begin."""
    long = {"tiny": make_package(LONG)}
    with Server(long, ServerSettings(threads=1)) as server:
        stop_an_answer(open_page(server))


def stop_an_answer(page: Any) -> None:
    set_limit(page, ENDLESS)
    say(page, "hello")
    page.get_by_role("button", name="Stop").wait_for()
    expect(page.locator("article.assistant .body")).to_have_text(re.compile(r".{6,}", re.DOTALL))
    page.keyboard.press("Escape")
    page.get_by_text("Stopped.").wait_for()
    assert page.get_by_role("button", name="Send").is_visible()
    assert page.problems == []


@needs_browser
def test_several_conversations(server: Server, open_page: Callable[..., Any]) -> None:
    page = open_page(server)
    set_limit(page, 3)
    for text in ("one", "two"):
        page.keyboard.press("Alt+n")
        say(page, text)
        wait(page)
    page.get_by_role("button", name="one", exact=True).click()
    assert page.locator("article.user .body").inner_text() == "one"
    page.get_by_role("button", name="Delete: one").click()
    assert page.locator("article.user .body").inner_text() == "two"
    page.reload()
    assert page.get_by_role("button", name="Delete: two").count() == 1
    assert page.get_by_role("button", name="Delete: one").count() == 0


@needs_browser
def test_markdown_is_shown_and_html_is_not(server: Server, open_page: Callable[..., Any]) -> None:
    page = open_page(server)
    lines = "# Head", "**b** `c < d` <img src=x onerror=alert(1)>", "- [l](https://a.example/)", "- [m](javascript:x)"
    text = "\n".join([*lines, "```js", "<b>", "```"])
    page.evaluate(
        "text => { current.messages.push({role: 'user', content: text}, {role: 'assistant', content: text}); show(); }",
        text,
    )
    body = page.locator("article.assistant .body")
    assert body.locator("img, b").count() == 0
    assert body.locator("strong").all_inner_texts() == ["Head", "b"]
    assert body.locator("code").all_inner_texts() == ["c < d", "<b>"]
    assert [link.get_attribute("href") for link in body.locator("a").all()] == ["https://a.example/"]
    assert page.locator("article.user .body").inner_text() == text
    assert page.problems == []


@needs_browser
def test_a_key_and_an_error(serve: Callable[..., Server], open_page: Callable[..., Any]) -> None:
    page = open_page(serve(api_keys=("secret",)))
    page.get_by_text("The models are not known: the API key is missing or wrong").wait_for()
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("API key").fill("secret")
    page.get_by_role("button", name="Done").click()
    expect(page.locator("#model")).to_have_value("tiny")
    say(page, "x" * 5000)
    page.get_by_text("no room for a new token").wait_for()


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_and_colours(server: Server, open_page: Callable[..., Any], scheme: Any) -> None:
    """All that can be used has a name for a screen reader, and text stands out from what is behind it."""
    page = open_page(server, color_scheme=scheme)
    assert (
        page.evaluate(
            """() => [...document.querySelectorAll('button, textarea, input, select')].filter(each =>
             !each.textContent.trim() && !each.ariaLabel && !each.labels?.length).length"""
        )
        == 0
    )
    colours = page.evaluate("() => { const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]; }")
    light, dark = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
    assert abs(light - dark) > 500
    assert (light > dark) == (scheme == "dark")


@needs_browser
def test_another_page_cannot_use_the_server(server: Server, browser: Any) -> None:
    page = browser.new_page()
    page.route("http://evil.example/**", lambda route: route.fulfill(body="<p>evil</p>", content_type="text/html"))
    page.goto("http://evil.example/")
    asked = """async url => { try { return (await fetch(url + '/v1/completions', {method: 'POST', mode: MODE,
        headers: {'Content-Type': TYPE}, body: '{"prompt": "a"}'})).status } catch (e) { return 'no' } }"""
    before = server.stats().get("new_tokens_total", 0)
    for mode, kind in (("cors", "application/json"), ("no-cors", "text/plain"), ("cors", "text/plain")):
        found = page.evaluate(asked.replace("MODE", f"'{mode}'").replace("TYPE", f"'{kind}'"), server.url)
        assert found in ("no", 0)
    assert server.stats().get("new_tokens_total", 0) == before
    page.close()

"""What an endpoint shows of a server, and of its key: nothing."""

import base64
import html
import json
import urllib.parse

import pytest

from idealized_runtime.api.endpoint import Endpoint

KEY = "sk-SECRET-abcdef0123456789+/x"
ENDPOINT = Endpoint("http://a/v1", "tiny", api_key=KEY)
FORMS = {
    "as it is": KEY,
    "upper case": KEY.upper(),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 behind a user": base64.b64encode(b"me:" + KEY.encode()).decode(),
    "base64 behind Bearer": base64.urlsafe_b64encode(b"Bearer " + KEY.encode()).decode(),
    "hexadecimal": KEY.encode().hex().upper(),
    "quoted": urllib.parse.quote(KEY, safe=""),
    "quoted throughout": "".join(f"%{ord(c):02x}" for c in KEY),
    "html": html.escape("".join(f"&#{ord(c)};" for c in KEY), quote=False).replace("&amp;", "&"),
    "json escapes": "".join(f"\\u{ord(c):04x}" for c in KEY),
    "over two lines": KEY[:11] + "\n" + KEY[11:],
    "in two strings": json.dumps([KEY[:13], KEY[13:]]),
    "half of it": KEY[:15],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_key_is_shown_in_no_form(form):
    shown = ENDPOINT.clean(f"the key {form} is wrong")
    assert "[key]" in shown
    assert shown.startswith("the key ")
    assert shown.endswith(" is wrong")
    # What is left of an encoding is the ends that hang on what stood around it.
    assert not any(form[i : i + 8].lower() in shown.lower() for i in range(4, len(form) - 12))


def test_key_that_the_end_of_a_message_would_cut_is_not_shown_by_half():
    shown = ENDPOINT.clean("x" * 290 + KEY)
    assert shown.endswith("x[key]")


@pytest.mark.parametrize("text", ["the answer is cut", "HTTP 503: overloaded", "text/event-stream; charset=utf-8"])
def test_other_texts_stay(text):
    assert ENDPOINT.clean(text) == text


def test_short_key_is_no_word_in_another_case():
    assert (
        Endpoint("http://a/v1", "tiny", api_key="EMPTY").clean("EMPTY: the list is empty") == "[key]: the list is empty"
    )


def test_what_a_server_says_is_one_line_that_a_terminal_shows():
    assert ENDPOINT.clean("a\n\x1b[2J\u202eb\tc") == "a \\x1b[2J\\u202eb c"
    assert len(ENDPOINT.clean("y" * 10**6)) < 400


@pytest.mark.parametrize(
    ("base_url", "is_exposed"),
    [
        ("http://api.example.com/v1", True),
        ("http://192.168.1.4:8000/v1", True),
        ("http://[2001:db8::1]/v1", True),
        ("http://localhost.example.com/v1", True),
        ("https://api.example.com/v1", False),
        ("http://127.0.0.1:8000/v1", False),
        ("http://127.8.8.8/v1", False),
        ("http://[::1]:8000/v1", False),
        ("http://LOCALHOST/v1", False),
    ],
)
def test_key_over_plain_http_to_another_machine_is_exposed(base_url, is_exposed):
    assert Endpoint(base_url, "tiny", api_key=KEY).is_key_exposed == is_exposed
    assert not Endpoint(base_url, "tiny").is_key_exposed


@pytest.mark.parametrize(
    ("base_url", "hint"),
    [
        ("http://a", "; --base-url names no version: try http://a/v1"),
        ("http://a/openai/", "; --base-url names no version: try http://a/openai/v1"),
        ("http://a/v1", ""),
        ("http://a/api/v3/x", ""),
    ],
)
def test_address_without_a_version_is_told(base_url, hint):
    assert Endpoint(base_url, "tiny").version_hint == hint

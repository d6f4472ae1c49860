"""Each fault as a client on a bare socket meets it."""

from __future__ import annotations

import email.utils
import io
import time
from typing import Any

import pytest
from PIL import Image

from geoloc_dagster.emulator.process import RunningEmulator
from geoloc_dagster_tests.emulator.asking import CLIENT, PATHS, RawAnswer, as_json, get, image, metadata, outcomes, raw
from geoloc_dagster_tests.emulator.stub_city import spot

ENDPOINTS = ("metadata", "image", "history")


def ask(service: RunningEmulator, endpoint: str, **how: Any) -> RawAnswer:
    return raw(service.url, PATHS[endpoint], location=spot(), size="160x160", return_error_code="true", **how)


def under(service: RunningEmulator, endpoint: str, fault: str, *, how: dict[str, Any] | None = None, **rule: Any) -> RawAnswer:
    """The answer under one fault, after checking that the log names it."""
    service.set_faults({"rules": [{"fault": fault, **rule}]})
    service.clear_hits()
    answer = ask(service, endpoint, **(how or {}))
    assert outcomes(service.hits()) == [fault]
    return answer


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_reset_cuts_the_connection_in_the_middle(service: RunningEmulator, endpoint: str):
    whole = ask(service, endpoint)
    answer = under(service, endpoint, "reset")
    assert answer.end == "reset"
    assert len(answer.body) < len(whole.body)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_wrong_length_promises_more_than_it_sends(service: RunningEmulator, endpoint: str):
    whole = ask(service, endpoint)
    answer = under(service, endpoint, "wrong_length")
    assert (answer.end, answer.body) == ("eof", whole.body)
    assert int(answer.headers["content-length"]) > len(answer.body)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_slow_answers_well_but_late(service: RunningEmulator, endpoint: str):
    whole = ask(service, endpoint)
    began = time.monotonic()
    answer = under(service, endpoint, "slow", seconds=0.3)
    assert time.monotonic() - began >= 0.3
    assert (answer.status, answer.body) == (200, whole.body)
    assert under(service, endpoint, "slow", seconds=60, how={"timeout_s": 0.2}).end == "timeout"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_drip_never_ends_and_never_pauses_for_long(service: RunningEmulator, endpoint: str):
    beyond = 8 * len(ask(service, endpoint).body)  # a byte costs six on the wire
    answer = under(service, endpoint, "drip", seconds=0.0, how={"at_most": beyond})
    assert answer.end == "enough"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.body.startswith(b"1\r\n")
    assert answer.body[-6:].count(b" ") == 1, "after the last byte it goes on with blanks"


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_huge_sends_and_sends(service: RunningEmulator, endpoint: str, announced: bool):
    answer = under(service, endpoint, "huge", announced=announced, how={"at_most": 5 << 20})
    assert len(answer.body) >= 5 << 20 >> 1
    assert answer.headers.get("content-length") == ("200000000" if announced else None)
    whole = under(service, endpoint, "huge", announced=True, body_bytes=300_001)
    assert (whole.end, len(whole.body)) == ("eof", 300_001)
    assert service.hits()["totals"]["bytes"] == 300_001


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_server_errors(service: RunningEmulator, endpoint: str):
    for status in (500, 503):
        answer = under(service, endpoint, f"refused_status_{status}")
        assert answer.status == status
        assert "retry-after" not in answer.headers
    assert under(service, endpoint, "refused_status_503", seconds=7).headers["retry-after"] == "7"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_retry_after_says_when_in_either_form(service: RunningEmulator, endpoint: str):
    answer = under(service, endpoint, "retry_after", seconds=2.5)
    assert (answer.status, answer.headers["retry-after"]) == (429, "3")
    before = time.time()
    text = under(service, endpoint, "retry_after", seconds=30, form="date").headers["retry-after"]
    moment = email.utils.parsedate_to_datetime(text.title().replace("Gmt", "GMT"))
    assert before + 30 <= moment.timestamp() <= time.time() + 31


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_html_is_a_page_for_people_with_or_without_a_captcha(service: RunningEmulator, endpoint: str):
    for captcha in (True, False):
        answer = under(service, endpoint, "html", captcha=captcha)
        assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert (b"captcha" in answer.body) == (b"unusual traffic" in answer.body) == captcha


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_empty_and_not_json(service: RunningEmulator, endpoint: str):
    good = ask(service, endpoint)
    empty = under(service, endpoint, "empty")
    assert (empty.status, empty.body, empty.headers["content-length"]) == (200, b"", "0")
    broken = under(service, endpoint, "not_json")
    assert broken.headers["content-type"] == empty.headers["content-type"] == good.headers["content-type"]
    with pytest.raises(ValueError, match="Expecting value"):
        as_json(broken.body)


@pytest.mark.parametrize(
    ("fault", "status", "http_status"),
    [
        ("over_query_limit", "OVER_QUERY_LIMIT", 429),
        ("request_denied", "REQUEST_DENIED", 403),
        ("unknown_error", "UNKNOWN_ERROR", 500),
    ],
)
def test_statuses_that_only_a_fault_brings_about(service: RunningEmulator, fault: str, status: str, http_status: int):
    for endpoint in ("metadata", "history"):
        answer = under(service, endpoint, fault)
        assert (answer.status, as_json(answer.body)["status"]) == (200, status)
        assert as_json(answer.body)["error_message"]
    answer = under(service, "image", fault)
    assert (answer.status, answer.body.split(b":")[0].decode()) == (http_status, status)


def test_truncated_jpeg_has_an_honest_length_but_no_end(service: RunningEmulator):
    whole = ask(service, "image").body
    assert whole.endswith(b"\xff\xd9")
    answer = under(service, "image", "truncated_jpeg")
    assert answer.body == whole[: len(whole) // 2]
    assert int(answer.headers["content-length"]) == len(answer.body)
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(answer.body)).load()


def test_grey_hides_that_there_is_no_picture(service: RunningEmulator):
    answer = under(service, "image", "grey")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")
    with Image.open(io.BytesIO(answer.body)) as picture:
        assert picture.size == (160, 160)
    service.set_faults({})
    nowhere = image(service.url, location="0,0", size="160x160", return_error_code="false")
    assert (nowhere.status_code, nowhere.content) == (200, answer.body)


def test_missing_date_leaves_out_the_date_alone(service: RunningEmulator):
    whole = metadata(service.url, location=spot())
    answer = as_json(under(service, "metadata", "missing_date").body)
    assert "date" not in answer
    assert answer == {name: value for name, value in whole.items() if name != "date"}


def test_a_fault_that_cannot_harm_an_answer_is_not_counted(service: RunningEmulator):
    service.set_faults({"rules": [{"fault": "missing_date"}, {"fault": "truncated_jpeg"}]})
    assert metadata(service.url, location="0,0") == {"status": "ZERO_RESULTS"}
    assert image(service.url, location="0,0").status_code == 404
    assert outcomes(service.hits()) == ["ZERO_RESULTS", "ZERO_RESULTS"]


def test_the_same_script_again_gives_the_same_run_again(service: RunningEmulator):
    def run() -> list[str]:
        rules = [{"fault": "refused_status_500", "probability": 0.3}, {"fault": "empty", "probability": 0.2}]
        service.set_faults({"seed": 5, "rules": rules})
        service.clear_hits()
        for column in range(40):
            for _ in range(2):
                get(service.url, PATHS["metadata"], location=spot(0, column))
        return outcomes(service.hits())

    first = run()
    assert {"OK", "refused_status_500", "empty"} == set(first)
    assert run() == first


def test_other_clients_are_served_while_one_is_dripped_on(service: RunningEmulator):
    service.set_faults({"rules": [{"fault": "slow", "seconds": 30, "endpoint": "history"}]})
    assert ask(service, "history", timeout_s=0.1).end == "timeout"
    assert metadata(service.url, location=spot())["status"] == "OK"


def test_a_script_that_means_nothing_is_refused_and_changes_nothing(service: RunningEmulator):
    service.set_faults({"rules": [{"fault": "empty"}]})
    for body in ('{"rules": [{"fault": "gremlins"}]}', "[", '{"rule": []}'):
        response = CLIENT.put(service.url + "/emulator/faults", content=body)
        assert response.status_code == 422
        assert response.json()["error"]
    assert get(service.url, "/emulator/faults").json()["rules"][0]["fault"] == "empty"

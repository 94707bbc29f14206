"""The example of the operators' page is what the service answers."""

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("page", ["forecasts.md", "ru/forecasts.md"])
async def test_the_worked_example_is_what_the_service_answers(api, page):
    text = (DOCS / page).read_text("utf-8")
    account, forecast = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    query = re.search(r"forecast\?(\S+)\"", text)[1]

    stored = await api.put("/accounts/100500", json=account)
    answer = await api.get(f"/accounts/100500/forecast?{query}")

    assert stored.status_code == 201
    assert answer.json() == forecast


@pytest.mark.parametrize("page", ["forecasts.md", "ru/forecasts.md"])
def test_the_picture_shows_the_figures_of_the_example(page):
    text = (DOCS / page).read_text("utf-8")
    forecast = json.loads(re.findall(r"```json\n(.*?)```", text, re.DOTALL)[1])
    picture = re.search(r"```text\n(.*?)```", text, re.DOTALL)[1]

    assert {day["balance_after"] for day in forecast["timeline"]} < set(re.findall(r"^ *(-?[0-9.]+) \|", picture, re.MULTILINE)) | {"0"}
    told = {line.split()[0]: line.split()[1:] for line in picture.splitlines()[-3:]}
    assert told["exhausting"] == [notice["mark"] for notice in forecast["notices"] if notice["type"] == "balance.exhausting"]
    assert told["upcoming"] == [str(int(notice["mark"][-2:])) for notice in forecast["notices"] if notice["type"] == "charges.upcoming"]

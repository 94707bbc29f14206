"""What travels over Redis is JSON, whatever arq puts into it."""

from arq.worker import JobExecutionFailed

from app.core.wakeups import pack, unpack


def test_a_job_goes_there_and_back():
    job = {"t": 1, "f": "wake", "a": (), "k": {}, "et": 1_795_434_189_000}

    assert unpack(pack(job)) == job | {"a": []}


def test_a_result_that_is_an_exception_is_written_as_its_text():
    assert unpack(pack({"r": JobExecutionFailed("job expired")})) == {"r": "job expired"}

"""An account erased: what was personal is gone, what was counted stays. The number is free for somebody else."""

from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Request
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.api import AccountNumber
from app.accounts.search import AccountNotFound
from app.accounts.shapes import TOMBSTONE
from app.core import audit
from app.core.auth import Caller, MayWriteAccounts
from app.core.clock import now
from app.core.config import Settings
from app.core.db import BulkInsert
from app.core.http import Guarded
from app.core.ids import new_id
from app.core.peppers import hashed
from app.notifications.states import State

router = APIRouter(prefix="/accounts", tags=["accounts"], route_class=Guarded)

# FOR UPDATE: the number is about to change, so whoever only refers to the account waits as well. Planning, which locks accounts, is over or has not begun.
LOCK = sa.text("SELECT id FROM account WHERE number = :number AND status <> 'erased' FOR UPDATE")
FORGET_WAITING = sa.text("DELETE FROM event_waiting WHERE account_id = :account")
# A number that another account has as well is still somebody's here: what came from it stays.
OWN = sa.text("""
SELECT channel, address FROM contact c WHERE account_id = :account AND NOT EXISTS (
    SELECT FROM contact o WHERE o.channel = c.channel AND o.address = c.address AND o.account_id <> c.account_id)
""")
SPOKEN = sa.text("""
SELECT DISTINCT address FROM consent WHERE NOT address LIKE 'hmac:%' AND (account_id = :account OR (account_id IS NULL AND address = ANY(CAST(:own AS text[]))))
""")
HIDE = sa.text("""
UPDATE consent SET address = v.hash, detail = '' FROM unnest(CAST(:addresses AS text[]), CAST(:hashes AS text[])) AS v(address, hash)
WHERE consent.address = v.address AND (account_id = :account OR (account_id IS NULL AND consent.address = ANY(CAST(:own AS text[]))))
""")
FORGET_INBOUND = [
    sa.text("UPDATE inbound_message SET source = '', text = '', raw = '' WHERE source = ANY(CAST(:own AS text[]))"),
    sa.text("DELETE FROM inbound_part WHERE source = ANY(CAST(:own AS text[]))"),
]
FORGET_BOUNCES = sa.text("UPDATE bounce SET recipient = NULL, diagnostic = NULL WHERE recipient = ANY(CAST(:own AS text[]))")
MESSAGES = sa.text("SELECT id FROM message WHERE account_id = :account ORDER BY id")
CANCEL = sa.text("DELETE FROM outbox WHERE message_id = ANY(CAST(:messages AS uuid[])) AND state = ANY(CAST(:waiting AS text[])) RETURNING message_id")
# A message on the wire is settled as it comes out; but put back into the queue it must not go again, with nothing in it: it has expired.
LAST_TRY = sa.text("UPDATE outbox SET expires_at = LEAST(expires_at, :now) WHERE message_id = ANY(CAST(:messages AS uuid[]))")
END = sa.text("UPDATE message SET state = :state, reason = 'erased', updated_at = :now WHERE id = ANY(CAST(:messages AS uuid[]))")
CHANGES = BulkInsert("message_change", id="uuid", message_id="uuid", at="timestamptz", state="text", reason="text")
SENT_TO = "SELECT destination FROM submission WHERE message_id = ANY(CAST(:messages AS uuid[]))"
BLANK = [
    sa.text(statement)
    for statement in (
        "UPDATE message SET address = '', subject = NULL, text = '', html = NULL, attachments = NULL, content_deleted_at = now() WHERE account_id = :account",
        "UPDATE message_change SET detail = NULL WHERE message_id = ANY(CAST(:messages AS uuid[])) AND detail IS NOT NULL",
        # Receipts that found nobody are told by the number. They have small indexes of their own.
        f"UPDATE receipt SET raw = '', destination = NULL WHERE status IN ('quarantined', 'unmatched') AND destination = ANY({SENT_TO})",
        f"UPDATE receipt SET raw = '', destination = NULL WHERE status = 'parked' AND destination = ANY({SENT_TO})",
        # Destination 0 is nobody's: receipts that come for it later keep nothing of their text.
        "UPDATE submission SET detail = NULL, destination = 0 WHERE message_id = ANY(CAST(:messages AS uuid[]))",
        "UPDATE receipt SET raw = '', destination = NULL WHERE message_id = ANY(CAST(:messages AS uuid[]))",
        "UPDATE bounce SET recipient = NULL, diagnostic = NULL WHERE message_id = ANY(CAST(:messages AS uuid[]))",
        "UPDATE event SET data = CAST('{}' AS jsonb), content_deleted_at = now() WHERE account_id = :account",
        "UPDATE forecast_hit SET inputs = CAST('{}' AS jsonb) WHERE account_id = :account",
        "DELETE FROM forecast_episode WHERE account_id = :account",
        "DELETE FROM balance_moved WHERE account_id = :account",
        "DELETE FROM told WHERE account_id = :account",
        "DELETE FROM account_preference WHERE account_id = :account",
        "DELETE FROM replan_waiting WHERE account_id = :account",
        "DELETE FROM contact_code WHERE contact_id IN (SELECT id FROM contact WHERE account_id = :account)",
        "DELETE FROM contact WHERE account_id = :account",
        "DELETE FROM planned_charge WHERE account_id = :account",
    )
]
# What a dry run of a forecast scan would have told. While it is at work its slices have it; when it ends, it is moved to the run.
IS_IN = "@> jsonb_build_array(jsonb_build_object('account', CAST(:number AS text)))"
FORGET_SAMPLES = [
    sa.text(f"""
    UPDATE scan_slice s SET found = s.found - 'sample' FROM scan_run r
    WHERE r.id = s.run_id AND r.dry_run AND r.state IN ('queued', 'running') AND s.found -> 'sample' {IS_IN}
    """),
    sa.text(f"UPDATE scan_run SET sample = CAST('[]' AS jsonb) WHERE sample {IS_IN}"),
]
BURY = sa.text("""
UPDATE account SET number = :tombstone, name = '', status = 'erased', balance = 0, balance_as_of = NULL, credit_limit = 0, currency = :currency,
    locale = :locale, timezone = :timezone, tariff = '', threshold = NULL, own_threshold = NULL, warning_days = NULL, upcoming_days = NULL,
    attributes = CAST('{}' AS jsonb), imported = NULL, imported_lists = NULL,
    updated_at = :now
WHERE id = :account
""")


@router.delete("/{number}", operation_id="erase_account", summary="Erase an account", status_code=204)
async def erase_account(request: Request, number: AccountNumber, caller: MayWriteAccounts) -> None:
    """The personal data of the account and of all its events and messages is gone for good; counts and states stay.

    So is what was received from its addresses, unless another account has them, too. Its consents stay as proofs, with keyed hashes instead of addresses.
    A suppression is of an address and not of the account: it stays, or whoever has said STOP would be written to again.

    What waits to be sent is cancelled (reason `erased`); what is on the wire this very moment may still arrive. The number is free for a new account.
    """
    settings: Settings = request.app.state.settings
    await request.app.state.database.again(lambda session: erase(session, caller, number, settings))


async def erase(session: AsyncSession, caller: Caller, number: str, settings: Settings) -> None:
    """Everything of this account in one transaction, or AccountNotFound. It locks the account first, as all that write to it do."""
    account = await session.scalar(LOCK, {"number": number})
    if account is None:
        raise AccountNotFound
    await session.execute(FORGET_WAITING, {"account": account})
    messages = list(await session.scalars(MESSAGES, {"account": account}))
    await cancel(session, messages)
    await forget_spoken(session, account)
    for statement in BLANK:
        await session.execute(statement, {"account": account, "messages": messages})
    for statement in FORGET_SAMPLES:
        await session.execute(statement, {"number": number})
    moment = now()
    values = {"tombstone": f"{TOMBSTONE}{account}", "currency": settings.currency, "locale": settings.locale, "timezone": settings.timezone}
    await session.execute(BURY, values | {"now": moment, "account": account})
    # Its number as a keyed hash: whoever knows the number can prove that it was erased, nobody can read it here.
    await audit.record(session, caller, "account.erase", f"account:{account}", {"number": number, "messages": len(messages)})


async def forget_spoken(session: AsyncSession, account: UUID) -> None:
    """What came from the account's addresses, while its contacts still say which they are."""
    contacts = (await session.execute(OWN, {"account": account})).all()
    own = sorted({row.address for row in contacts})
    spoken = sorted(await session.scalars(SPOKEN, {"account": account, "own": own}))
    if spoken:
        hashes = [await hashed(session, address) for address in spoken]
        await session.execute(HIDE, {"account": account, "own": own, "addresses": spoken, "hashes": hashes})
    numbers = [row.address for row in contacts if row.channel == "sms"]
    if numbers:
        for statement in FORGET_INBOUND:
            await session.execute(statement, {"own": numbers})
    if len(numbers) < len(own):
        await session.execute(FORGET_BOUNCES, {"own": own})


async def cancel(session: AsyncSession, messages: list[UUID]) -> None:
    """Those of them that have not gone yet."""
    moment = now()
    waiting = [State.HELD.value, State.QUEUED.value]
    cancelled = list(await session.scalars(CANCEL, {"messages": messages, "waiting": waiting}))
    await session.execute(LAST_TRY, {"messages": messages, "now": moment})
    if cancelled:
        await session.execute(END, {"messages": cancelled, "state": State.CANCELLED.value, "now": moment})
        await CHANGES.run(session, [(new_id(), message, moment, State.CANCELLED.value, "erased") for message in cancelled])

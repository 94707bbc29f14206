"""One-time codes in texts. Nobody reads one over the API, and the database forgets it as soon as its message is out of our hands.

Every digit of such a text becomes an asterisk, not only those of the code: a template may write 48-29-13. A receipt may repeat how the text begins, so
receipts of these messages lose their octets, too. (PDU traces never have a text.)
"""

import sqlalchemy as sa

from app.catalogue.types import VERIFICATION
from app.core.db import Database

BATCH = 500


def readable(column: str, message: str = "m") -> str:
    """SQL of a text of a message (its alias) as it may be shown."""
    return f"CASE WHEN {message}.type = '{VERIFICATION}' THEN regexp_replace({column}, '[0-9]', '*', 'g') ELSE {column} END"


# Whatever ended it, its line in the outbox is gone with that; there is none to come. What is an e-mail's HTML nobody asks for any more.
BLANK = sa.text("""
WITH gone AS MATERIALIZED (
    SELECT message_id FROM code_message c WHERE NOT is_blank AND NOT EXISTS (SELECT FROM outbox o WHERE o.message_id = c.message_id)
    ORDER BY message_id LIMIT :batch FOR UPDATE SKIP LOCKED
), blanked AS (
    UPDATE message SET subject = regexp_replace(subject, '[0-9]', '*', 'g'), text = regexp_replace(text, '[0-9]', '*', 'g'), html = NULL
    WHERE id = ANY(ARRAY(SELECT message_id FROM gone))
)
UPDATE code_message SET is_blank = true WHERE message_id = ANY(ARRAY(SELECT message_id FROM gone)) RETURNING message_id
""")
BLANK_RECEIPTS = sa.text("""
UPDATE receipt SET raw = '' WHERE raw <> '' AND message_id = ANY(ARRAY(SELECT message_id FROM code_message WHERE at > now() - interval '1 hour' OR at < now() - interval '1 day'))
""")
# For a day they are counted.
FORGET = (
    sa.text("DELETE FROM code_message WHERE is_blank AND at < now() - interval '1 day'"),
    sa.text("DELETE FROM contact_code WHERE expires_at < now() - interval '1 hour'"),
)


class OneTimeTexts:
    """The steps of the sweeper. Each may run anywhere, any number of times."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def blank(self) -> int:
        """The texts of what has left the outbox. How many."""
        async with self._database.transaction() as session:
            return len((await session.execute(BLANK, {"batch": BATCH})).all())

    async def forget(self) -> None:
        """What receipts repeat of them; then codes and counts that are of no use any more."""
        async with self._database.transaction() as session:
            await session.execute(BLANK_RECEIPTS)
            for statement in FORGET:
                await session.execute(statement)

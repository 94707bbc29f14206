"""Accounts found: by their number, or by how a number, an address or a word of a name begins. Every road is an index."""

import re
from typing import Any

import phonenumbers
import sqlalchemy as sa
from phonenumbers.phonemetadata import PhoneMetadata
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.models import NAME_WORDS, Account
from app.core.errors import NotFound

MAX_QUERY = 200
_phone_like = re.compile(r"\+?[0-9 ().\-\u00a0]*[0-9][0-9 ().\-\u00a0]*").fullmatch


class AccountNotFound(NotFound):
    """No account has this number; an erased one has none any more."""

    code, title = "account_not_found", "There is no account of this number"


async def account_of(session: AsyncSession, number: str, *, lock: bool = False) -> Account:
    """The account of this number, or AccountNotFound. `lock`: against other changes until the end of the transaction."""
    query = sa.select(Account).where(sa.column("number") == number, sa.column("status") != "erased").execution_options(populate_existing=True)
    if lock:
        query = query.with_for_update(key_share=True)  # FOR NO KEY UPDATE
    account = await session.scalar(query)
    if account is None:
        raise AccountNotFound
    return account


# The ~ operators compare octet by octet, as the text_pattern_ops indexes are ordered: bounds instead of LIKE, so nothing needs escaping.
# Each road stops after one page; the page is then made of what they found.
BY_NUMBER = """
(SELECT id, number FROM account WHERE number ~>=~ :number_from {number_upto} AND number ~>~ :after AND status <> 'erased' ORDER BY number USING ~<~ LIMIT :limit)"""
BY_ADDRESS = """
(SELECT DISTINCT a.id, a.number FROM unnest(CAST(:address_from AS text[]), CAST(:address_upto AS text[])) AS p(low, high)
 JOIN contact c ON c.address ~>=~ p.low AND c.address ~<~ p.high JOIN account a ON a.id = c.account_id
 WHERE a.number ~>~ :after ORDER BY a.number USING ~<~ LIMIT :limit)"""
BY_NAME = f"""
(SELECT id, number FROM account WHERE {NAME_WORDS} @@ to_tsquery('simple', :words) AND number ~>~ :after ORDER BY number USING ~<~ LIMIT :limit)"""


def search(query: str, after: str, limit: int, region: str) -> tuple[str, dict[str, Any]]:
    """The statement and its values: the ids of the next accounts after a number, in the order of numbers."""
    upto = next_after(query)
    roads = [BY_NUMBER.format(number_upto="AND number ~<~ :number_upto" if upto else "")]
    values: dict[str, Any] = {"number_from": query, "after": after, "limit": limit}
    if upto:
        values["number_upto"] = upto
    if query:
        beginnings = address_beginnings(query, region)
        values |= {"address_from": beginnings, "address_upto": [next_after(beginning) or beginning for beginning in beginnings]}
        roads.append(BY_ADDRESS)
    if words := name_words(query):
        values["words"] = words
        roads.append(BY_NAME)
    return f"SELECT id FROM ({' UNION '.join(roads)}) found ORDER BY number USING ~<~ LIMIT :limit", values


async def find(session: AsyncSession, query: str, after: str, limit: int, region: str) -> list[Account]:
    """The next accounts after a number, in the order of numbers."""
    statement, values = search(query.strip(), after, limit, region)
    ids = (await session.scalars(sa.text(statement), values)).all()
    found = {account.id: account for account in await session.scalars(sa.select(Account).where(sa.column("id").in_(ids)))}
    return [found[i] for i in ids if i in found]


def next_after(beginning: str) -> str:
    """The first string that comes after everything with this beginning, in the order of code points (and so of UTF-8 octets); "" when there is none."""
    for cut in range(len(beginning), 0, -1):
        point = ord(beginning[cut - 1]) + 1
        if point == 0xD800:
            point = 0xE000  # the surrogates are no characters (RFC 3629, 3)
        if point <= 0x10FFFF:
            return beginning[: cut - 1] + chr(point)
    return ""


def address_beginnings(query: str, region: str) -> list[str]:
    """How a stored address may begin that somebody looks for: phones with or without +, also as they are dialled at home."""
    found = {query, query.lower()}
    if _phone_like(query):
        digits = re.sub(r"[^0-9]", "", query)
        found.add(f"+{digits}")
        metadata = PhoneMetadata.metadata_for_region(region)
        home = metadata.national_prefix if metadata else None
        if home and not query.startswith("+") and digits.startswith(home):
            found.add(f"+{phonenumbers.country_code_for_region(region)}{digits.removeprefix(home)}")
    return sorted(found)


def name_words(query: str) -> str:
    """A tsquery: every word of the query begins a word of the name. "" when the query has none.

    Words of letters and digits alone, quoted: nothing of the query is read as an operator.
    """
    return " & ".join(f"'{word}':*" for word in re.findall(r"[^\W_]+", query)[:10])

"""A version proved as it would be sent now: with its type's samples, the layouts and brands that there are, and somebody to pay where it shows a payment code."""

import asyncio
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncSession

from app.catalogue.models import NotificationType
from app.rendering.looks import STILL, brands_of, layouts_of
from app.rendering.models import TemplateVersion
from app.rendering.payees import no_payee, shows_code
from app.rendering.proof import Proof, proved


async def proved_now(session: AsyncSession, kind: NotificationType, channel: str, locale: str, words: TemplateVersion) -> Proof:
    """What would keep this version from being sent, and what may go wrong with it. No brand and no layout changes until the transaction ends."""
    if channel == "email":
        await session.execute(STILL)
    layouts, brands = await layouts_of(session), await brands_of(session)
    proof = await asyncio.to_thread(proved, kind.code, kind.data_schema, channel, locale, words, layouts, brands.layouts)
    lacking = no_payee(brands) if shows_code(words) else None
    return replace(proof, faults=[*proof.faults, lacking]) if lacking is not None else proof

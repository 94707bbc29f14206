"""Who pays whom: whether every letter that shows a payment code has requisites to make it of.

A code is made when its letter goes, of the payee of the letter's brand; a brand without one would let all of its letters fail, one by one. So a version with
a code is published only where every brand that an account may have has a payee, and while such a version is sent no brand loses its own.
"""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import FieldError
from app.rendering.brands import Brands
from app.rendering.models import TemplateVersion

PAYMENT_QR = "payment_qr"
BUILT_IN_BRAND = "(built-in)"  # of accounts that no brand is for

SHOWN_BY = sa.text("""
SELECT t.name FROM template t JOIN template_version v ON v.template_id = t.id AND v.version = t.published_version
WHERE v.attachments @> '[{"kind": "payment_qr"}]' ORDER BY t.name LIMIT 1
""")


def shows_code(version: TemplateVersion) -> bool:
    return any(spec.get("kind") == PAYMENT_QR for spec in version.attachments or ())


def without_payee(brands: Brands) -> list[str]:
    """The brands, by name, that an account may have and that have no payee; the built-in one last, where no brand is the default one."""
    named = [f"`{name}`" for name, brand in brands.by_name.items() if brand.settings.payee is None and brand.serves]
    return named if brands.has_default else [*named, BUILT_IN_BRAND]


def no_payee(brands: Brands) -> FieldError | None:
    """What keeps a version with a payment code from being sent."""
    if not (lacking := without_payee(brands)):
        return None
    names = ", ".join(lacking[:10])
    if lacking[-1] == BUILT_IN_BRAND and len(lacking) <= 10:
        return FieldError("/attachments", "no_payee", f"The payment code has no payee in {names}: add `payee` to each brand, and make one the default.")
    return FieldError("/attachments", "no_payee", f"The payment code has no payee in {names}: add `payee` to each brand.")


async def loses_payee(session: AsyncSession, before: Brands, after: Brands) -> FieldError | None:
    """What speaks against this change of brands: letters that are sent with a payment code now, and would have nothing to make it of then."""
    new = [name for name in without_payee(after) if name not in without_payee(before)]
    if not new:
        return None
    template = await session.scalar(SHOWN_BY)
    if template is None:
        return None
    return FieldError("/payee", "no_payee", f"The template {template!r} is sent with a payment code, and {', '.join(new)} would have no payee for it.")

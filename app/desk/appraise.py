"""What a dry run would have told: every message decided and rendered as planning would do it, counted and priced, and thrown away."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.preferences import read
from app.accounts.quiet import QuietHoursNow
from app.catalogue.registry import Catalogue
from app.core.clock import now
from app.core.config import Settings
from app.core.ids import new_id
from app.forecasts.find import TYPES, Hit
from app.gateways.operators import operators_of
from app.gateways.roads import Roads
from app.gateways.router import NO_ATTRIBUTES
from app.notifications.audience import Around, Reached, Skipped, choose
from app.notifications.delivery import FALLBACK, course_of
from app.notifications.links import Links
from app.notifications.plan import ACCOUNTS, CONTACTS, addresses_in, zone_of
from app.notifications.rows import cut_for
from app.rendering.compose import NoTemplate, RenderFailed, Templates, variables

SAMPLES = 20


class Appraiser:
    """Called with the hits of one slice; counts are added up by the scan."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._catalogue, self._templates, self._roads = Catalogue(), Templates(settings.locale), Roads()
        self._quiet = QuietHoursNow(settings.quiet)
        self._links = Links(settings)

    async def __call__(self, session: AsyncSession, hits: Sequence[Hit]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Counts by channel, type, zone and reason, parts and cost; and a sample with the texts."""
        await self._catalogue.refresh(session)
        await self._templates.refresh(session)
        await self._quiet.refresh(session)
        router, moment = await self._roads.look(session), now()
        ids = [hit.account_id for hit in hits]
        accounts = {row.id: row for row in (await session.execute(ACCOUNTS, {"ids": ids})).all()}
        contacts: dict[UUID, list[Reached]] = defaultdict(list)
        for contact_id, account_id, *rest in await session.execute(CONTACTS, {"ids": ids}):
            contacts[account_id].append(Reached(contact_id, *rest))
        operators = await operators_of(session, addresses_in(contacts)) if router.asks_operator else {}
        channels, types, zones, skipped, parts, cost = Counter[str](), Counter[str](), Counter[str](), Counter[str](), 0, Decimal(0)
        sample: list[dict[str, Any]] = []
        for hit in hits:
            account, code = accounts[hit.account_id], TYPES[hit.kind]
            zone = zone_of(account.timezone, self._settings.timezone)
            zones[account.timezone] += 1
            types[code] += 1
            around = Around(moment, zone, self._quiet.of(account.timezone), read(account.chosen_json))
            rules = self._catalogue.types.get(code)
            choices = choose(rules, account.status, contacts[account.id], moment, around)
            course = course_of(rules, choices, around)
            for chosen in choices:
                choice = chosen if isinstance(chosen, Skipped) else course.turn(chosen)
                if isinstance(choice, Skipped):
                    skipped[choice.reason] += 1
                    continue
                if course.after is not None:  # it goes only where the channel before it does not arrive
                    skipped[FALLBACK] += 1
                    continue
                contact = choice.contact
                try:
                    links = self._links.of(self._templates, self._catalogue.types.get(code), account.id, contact)
                    said = variables(account, contact, code, moment, hit.data, moment, links)
                    words = self._templates.compose(code, contact.channel, around.chosen.locale or account.locale, said)
                except (NoTemplate, RenderFailed) as error:
                    skipped["no_template" if isinstance(error, NoTemplate) else "render_failed"] += 1
                    continue
                road = router.choose(
                    contact.channel,
                    code,
                    contact.address,
                    account.id,
                    orjson.loads(account.attributes_json) if router.asks_attributes else NO_ATTRIBUTES,
                    operators.get(contact.address),
                )
                words = cut_for(road, words)
                course.made(new_id(), choice.not_before)
                channels[contact.channel] += 1
                if contact.channel == "sms":
                    parts += words.parts
                    cost += words.parts * (road.price if road is not None and road.price is not None else Decimal(0))
                if len(sample) < SAMPLES:
                    sample.append(
                        {
                            "account": account.number,
                            "type": code,
                            "channel": contact.channel,
                            "subject": words.subject,
                            "text": words.text,
                            "parts": words.parts,
                            "not_before": choice.not_before.isoformat(),
                        }
                    )
        counted = {"by_type": types, "by_channel": channels, "by_zone": zones, "not_reached": skipped}
        return {name: dict(counts) for name, counts in counted.items()} | {"sms_parts": parts, "cost": str(cost)}, sample

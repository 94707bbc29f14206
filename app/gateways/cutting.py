"""How a gateway with this profile cuts texts."""

from app.gateways.profile import Profile
from app.sms.cutting import Cutting


def cutting_of(profile: Profile) -> Cutting:
    """For the wire that sends the parts, and for planning, which counts them. Worth keeping: making it costs more than using it."""
    return Cutting(
        alphabets=tuple(profile.alphabets),
        default_alphabet=profile.default_alphabet,
        long_messages=profile.long_messages,
        transliteration=profile.transliteration,
        null_terminated=profile.null_terminate_sm,
    )

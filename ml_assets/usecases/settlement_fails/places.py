"""Places of settlement (PSET): the BIC of a securities depository, and the days on which it settles.

A depository settles on the days on which its market's payments do. DTC settles on no day on which the Federal Reserve
or the New York Stock Exchange is closed: on Columbus Day shares are traded and not delivered, and the SEC's files of
fails have no such date.
"""

from ml_assets.calendars import BusinessCalendar

TARGET = BusinessCalendar("ECB")
_UNITED_STATES = BusinessCalendar("NYSE+FED")
_LONDON = BusinessCalendar("LSE")
_SWITZERLAND = BusinessCalendar("SIX")

CALENDARS = {
    "DAKVDEFFXXX": TARGET,  # Clearstream Banking Frankfurt
    "SICVFRPPXXX": TARGET,  # Euroclear France
    "NECINL2AXXX": TARGET,  # Euroclear Nederland
    "CIKBBEBBXXX": TARGET,  # Euroclear Belgium
    "MOTIITMMXXX": TARGET,  # Euronext Securities Milan
    "CEDELULLXXX": TARGET,  # Clearstream Banking Luxembourg
    "DTCYUS33XXX": _UNITED_STATES,  # The Depository Trust Company
    "CRSTGB22XXX": _LONDON,  # CREST
    "INSECHZZXXX": _SWITZERLAND,  # SIX SIS
}

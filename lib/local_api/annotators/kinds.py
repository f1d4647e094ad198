"""What kind of thing a name names: general English titles, head words, countries, first names.

Decides from a name and the words around it, as any reader of English would. Refuses to know any
corpus: the lists hold common knowledge alone.
"""

import functools
import re
from collections.abc import Mapping

from lib.local_api.annotators import words

PERSON, SETTLEMENT, COUNTRY, NATURAL = "person", "settlement", "country", "natural"
FACILITY, POLITY, PERIOD, EVENT = "facility", "polity", "period", "event"
ORGANISATION, VEHICLE, WORK = "organisation", "vehicle", "work"


COURTESY = words.as_set(
    "Mr Mrs Miss Ms Messrs Mister Madam Madame Mme Monsieur Mlle Herr Frau Signor Dr"
)
TITLES = COURTESY | words.as_set(
    """Sir Lady Lord Dame Don Dona King Queen Prince Princess Duke Duchess Earl Count Countess
    Baron Baroness Viscount Marquis Emperor Empress Tsar Czar Sultan Caliph Khan Pope Cardinal
    Bishop Archbishop Abbot Abbess Prior Friar Father Mother Brother Sister Saint St Reverend Rev
    Captain Colonel General Major Lieutenant Sergeant Admiral Commander Corporal Capt Col Gen Lt
    Doctor Professor Prof President Governor Senator Mayor Judge Justice Chancellor Minister
    Inspector Constable Squire Master Mistress Uncle Aunt Cousin Grandfather Grandmother Old Young
    Knight Monk Chief Secretary"""
)
ROLES = frozenset(title.lower() for title in TITLES) | words.as_set(
    """king queen knight wizard monk author poet writer painter merchant soldier sailor priest nun
    bishop servant maid cook farmer physician surgeon lawyer teacher printer tailor smith
    blacksmith miller shepherd clerk housekeeper governess butler nurse widow daughter son wife
    husband brother sister cousin nephew niece uncle aunt friend companion heir ruler leader
    general captain admiral governor minister prophet saint hero heroine philosopher historian
    scholar explorer inventor scientist composer architect sculptor detective inspector emperor
    empress prince princess duke duchess earl baron count chief chieftain founder headmaster"""
)
SPEECH = words.as_set(
    """said says cried replied answered asked exclaimed whispered thought smiled laughed nodded
    looked turned spoke added returned observed continued sighed wrote told knew felt saw heard
    walked sat stood rose went came took gave loved married died reigned ruled"""
)
AT_PLACE = words.as_set(
    "in at to from near into towards toward through around across beyond outside via"
)
ALONG = words.as_set("on along across down up over of from to into toward towards near beside")
OF_PLACE = words.as_set("of for leave left reach reached visit visited entered between")

_HEADS = {
    NATURAL: """river mount mountain mountains lake loch sea ocean bay gulf forest wood woods valley
        vale hill hills island islands isle isles cape moor moors desert plain plains cliff cliffs
        creek strait peninsula glen heath fen marsh coast falls volcano rock rocks""",
    SETTLEMENT: "city town village port parish borough hamlet shire county province district",
    FACILITY: """castle street road lane square palace house hall abbey church cathedral priory
        tower bridge inn gate court chapel hospital station temple park garden gardens museum hotel
        theatre manor grange lodge mill row avenue place terrace prison fort convent monastery
        cottage farm tavern barracks library school cemetery harbour quay wharf dock""",
    POLITY: """kingdom empire republic duchy principality caliphate sultanate commonwealth dominion
        states federation union emirate khanate shogunate tsardom""",
    EVENT: """battle war wars siege treaty council revolution rebellion conquest crusade crusades
        massacre plague coronation fire peace expedition congress uprising revolt armada invasion
        famine flood earthquake sack fall frost mania rising eruption festival tournament truce
        armistice exhibition feast""",
    PERIOD: """age ages era period dynasty century reign renaissance reformation restoration
        enlightenment antiquity regency interregnum""",
    ORGANISATION: """company bank university college society association institute institution
        party order guild committee corporation inc ltd press club ministry department parliament
        senate army navy regiment office league agency fellowship brotherhood academy government
        police service council board trust foundation""",
    VEHICLE: "ship steamer schooner brig frigate hms locomotive",
    WORK: "chronicle chronicles history histories gospel book poem bible",
}
HEADS = {word: kind for kind, text in reversed(_HEADS.items()) for word in text.split()}
_ENDINGS = {
    SETTLEMENT: """burgh burg borough ton ham ville ford chester cester mouth bury wick port stead
        minster polis grad sted worth""",
    COUNTRY: "shire land stan",
}
_COUNTRIES = words.as_set(
    """England Scotland Wales Ireland Britain France Spain Portugal Italy Germany Austria Hungary
    Poland Russia Turkey Greece Egypt Persia Iran Iraq India China Japan Korea America Canada
    Mexico Brazil Peru Chile Argentina Cuba Australia Zealand Africa Asia Europe Switzerland
    Belgium Holland Netherlands Denmark Sweden Norway Finland Iceland Bohemia Prussia Bavaria
    Saxony Burgundy Normandy Brittany Gaul Flanders Castile Aragon Navarre Naples Sicily Sardinia
    Syria Palestine Israel Arabia Morocco Algeria Tunisia Ethiopia Kenya Nigeria Ukraine Romania
    Serbia Croatia Bulgaria Vietnam Thailand Indonesia Pakistan Afghanistan Virginia California
    Texas Florida Massachusetts Pennsylvania Cornwall Devon Kent Sussex Essex Surrey Norfolk
    Suffolk Dorset Somerset Northumberland Northumbria Mercia Wessex Tuscany Lombardy"""
)
_CITIES = words.as_set(
    """London Paris Rome Athens Madrid Lisbon Berlin Vienna Prague Budapest Warsaw Moscow Petersburg
    Constantinople Istanbul Jerusalem Damascus Baghdad Cairo Alexandria Carthage Venice Florence
    Milan Genoa Turin Pisa Seville Toledo Barcelona Granada Lyons Lyon Marseilles Bordeaux Rouen
    Calais Brussels Antwerp Bruges Ghent Amsterdam Hamburg Cologne Munich Dresden Leipzig Nuremberg
    Zurich Geneva Basel Copenhagen Stockholm Oslo Dublin Edinburgh Glasgow York Bath Oxford
    Cambridge Canterbury Winchester Bristol Liverpool Manchester Birmingham Leeds Plymouth
    Portsmouth Dover Chester Lincoln Durham Norwich Exeter Boston Philadelphia Chicago Washington
    Baltimore Charleston Delhi Bombay Calcutta Peking Beijing Shanghai Tokyo Sydney Melbourne
    Toronto Montreal Quebec Havana"""
)
_WATERS = words.as_set(
    """Thames Severn Tyne Trent Humber Avon Seine Loire Rhone Rhine Danube Elbe Tiber Po Nile
    Euphrates Tigris Ganges Indus Volga Mississippi Missouri Hudson Atlantic Pacific Mediterranean
    Baltic Alps Pyrenees Apennines Himalayas Andes Etna Vesuvius"""
)
FIRST_NAMES = words.as_set(
    """Adam Agnes Albert Alexander Alfred Alice Amelia Amy Andrew Ann Anna Anne Anthony Antony
    Arthur Barbara Beatrice Benjamin Bernard Bertha Caroline Catherine Charles Charlotte
    Christopher Clara Clement Constance Cornelius Daniel David Deborah Dorothy Edgar Edith Edmund
    Edward Edwin Eleanor Elinor Eliza Elizabeth Ellen Emily Emma Eric Ernest Ethel Eugene Eva
    Evelyn Fanny Florence Frances Francis Frank Fred Frederick Geoffrey George Gerald Gertrude
    Gilbert Grace Gregory Guy Hannah Harold Harriet Harry Helen Henrietta Henry Herbert Hester Hugh
    Humphrey Isaac Isabel Isabella Jack Jacob James Jane Janet Jasper Jean Jeremy Joan John Jonathan
    Joseph Joshua Julia Julian Kate Katharine Laura Lawrence Leonard Leopold Lewis Louis Louisa
    Lucy Luke Lydia Margaret Maria Marian Marianne Marie Mark Martha Martin Mary Matilda Matthew
    Maurice Michael Mildred Miles Miriam Nancy Nathaniel Nicholas Nicolas Nora Oliver Oscar Patrick
    Paul Peter Philip Phoebe Rachel Ralph Raymond Rebecca Reginald Richard Robert Robin Roger
    Roland Rosalind Rose Rupert Ruth Samuel Sarah Simon Sophia Sophie Stephen Susan Susanna Sybil
    Sylvia Theodore Theresa Thomas Timothy Toby Tom Ursula Victor Victoria Vincent Violet Vivian
    Walter Wilfred William Winifred Pablo Pedro Juan Carlos Maria Giovanni Marco Giuseppe Pierre
    Jacques Hans Karl Friedrich Ivan Dmitri Ahmed Mohammed Fatima Omar"""
)
_LISTS = {
    PERSON: """person people character individual human per figure author writer someone
        protagonist inhabitant ruler speaker""",
    SETTLEMENT: "settlement city town village gpe geopolitical location place capital geographic",
    COUNTRY: "country nation gpe geopolitical polity location place region county geographic",
    NATURAL: "natural loc location place geographic river mountain sea forest landscape water",
    FACILITY: "facility fac building house castle street room structure architecture",
    POLITY: "polity kingdom empire state republic dynasty realm government political gpe",
    PERIOD: "period era age epoch century reign time dynasty",
    EVENT: "event battle war siege treaty happening historical incident ceremony",
    ORGANISATION: """organisation organization org company institution corporation agency
        army society firm brand school""",
    VEHICLE: "vehicle veh ship boat carriage train vessel",
    WORK: "work title book publication painting poem song film literature",
}
_FALLS_BACK = {
    SETTLEMENT: (COUNTRY, NATURAL, FACILITY),
    COUNTRY: (POLITY, SETTLEMENT, NATURAL),
    NATURAL: (SETTLEMENT,),
    FACILITY: (SETTLEMENT, ORGANISATION),
    POLITY: (COUNTRY, ORGANISATION),
    ORGANISATION: (POLITY,),
}
_PEOPLES = re.compile(r"[a-z]{2}(?:ian|ean|ese|ish|ard)s?$|m[ae]n$")
_LIST_STEMS = {kind: frozenset(map(words.stem, text.split())) for kind, text in _LISTS.items()}
_TITLE_WORDS, _TEXT_WORDS, _LEAST_SHARE = 4.0, 1.0, 0.9


def of_list(name: str, about: str) -> dict[str, float]:
    """How strongly a list's name and description ask for each kind of thing.

    >>> max(of_list("GPE", "Cities, towns and countries").items(), key=lambda one: one[1])[0]
    'settlement'
    """
    asked: dict[str, float] = {}
    for text, weight in ((name, _TITLE_WORDS), (about, _TEXT_WORDS)):
        for word in dict.fromkeys(words.WORD.findall(text.replace("_", " "))):
            for kind, stems in _LIST_STEMS.items():
                if words.stem(word) in stems:
                    asked[kind] = asked.get(kind, 0.0) + weight
    return asked


def home(kind: str, lists: Mapping[int, Mapping[str, float]]) -> int | None:
    """The list that asks most for a kind, or for what a reader would file it under instead."""
    for one in (kind, *_FALLS_BACK.get(kind, ())):
        weighed = {number: asked.get(one, 0.0) for number, asked in lists.items()}
        best = max(weighed, key=lambda number: (weighed[number], -number), default=None)
        if best is not None and weighed[best] >= _LEAST_SHARE:
            return best
    return None


@functools.lru_cache(maxsize=1 << 14)
def of_name(tokens: tuple[str, ...]) -> dict[str, float]:
    """What a name alone says about its kind: titles, head words, endings, known names.

    >>> of_name(("Battle", "of", "Hastings")), of_name(("Sir", "Gawain"))
    ({'event': 3.0}, {'person': 3.0})
    """
    found: dict[str, float] = {}
    first, last = tokens[0], tokens[-1]
    inner = _head(tokens)
    if inner:
        return {inner: 3.0}
    if first.rstrip(".") in TITLES and len(tokens) > 1:
        return {PERSON: 3.0}
    if first in FIRST_NAMES or "." in first:
        found[PERSON] = 1.5
    for kind, known in ((COUNTRY, _COUNTRIES), (SETTLEMENT, _CITIES), (NATURAL, _WATERS)):
        if last in known and len(tokens) <= 2:
            found[kind] = 1.8
    if len(tokens) == 1 and not found:
        found |= _by_ending(last)
        if _PEOPLES.search(last):
            found[PERSON] = -1.0
    if len(tokens) > 1 and not found:
        found[PERSON] = 0.7
    return found


def _head(tokens: tuple[str, ...]) -> str | None:
    """The kind of a head word: before "of", or else at the end or at the start of a name."""
    plain = [token.lower().rstrip(".") for token in tokens]
    if "of" in plain[1:]:
        return HEADS.get(plain[plain.index("of") - 1])
    if len(plain) > 1 and tokens[0].rstrip(".") not in COURTESY:
        starts = HEADS.get(plain[0])
        return HEADS.get(plain[-1]) or (starts if starts in (NATURAL, SETTLEMENT) else None)
    return PERIOD if plain in (["renaissance"], ["reformation"]) else None


def _by_ending(word: str) -> dict[str, float]:
    return {
        kind: 0.7
        for kind, endings in _ENDINGS.items()
        if any(word.endswith(ending) and len(word) > len(ending) + 1 for ending in endings.split())
    }

"""A small relevance set: facts as memory keeps them, and queries with the facts that answer them.

It is what the ways of search are compared on (`test_search.py`). Queries are by kind, since each way is good at some:
the same words, other forms of them, names as people spell them, words of other languages, and paraphrases, which share
few letters with their fact or none.

`FACTS_OF_LANGUAGES` and `QUERIES_OF_LANGUAGES` are a set of their own, by language: what was said with a time that
counted from its day, what was corrected, what was denied beside what was affirmed, and a word as short as they get.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from turnwright.memory.records.terms import words

FACTS = {
    "currency": "The user wants all reports in USD.",
    "risk": "The user takes moderate risks with investments.",
    "phoenix": "The user works on Project Phoenix, a migration of the payment system.",
    "phoenix_deadline": "Project Phoenix has to go live before the end of March.",
    "manager": "The user's manager is Katarzyna Wójcik.",
    "team": "The user leads a team of five engineers in Lisbon.",
    "language": "The user prefers answers in short bullet points.",
    "morning": "Meetings before ten in the morning are not welcome.",
    "vegetarian": "The user is a vegetarian and dislikes mushrooms.",
    "peanuts": "The user has a severe allergy to peanuts.",
    "coffee": "The user drinks oat milk cappuccino without sugar.",
    "daughter": "The user's daughter Zoë starts school in September.",
    "dog": "The user has a beagle called Biscuit.",
    "anniversary": "The user's wedding anniversary is on 14 June.",
    "seat": "On flights the user books an aisle seat near the front.",
    "hotel": "The user stays at hotels with a swimming pool.",
    "passport": "The user's passport expires in February 2028.",
    "kyoto": "A journey to Kyoto is planned for the cherry blossom in April.",
    "miles": "The user collects miles with Lufthansa Miles & More.",
    "car": "The user drives a blue electric Renault Mégane.",
    "garage": "Car repairs are done by Garage Delacroix in Geneva.",
    "account": "The user's salary is paid into checking account 4711.",
    "savings": "The user saves 300 a month for a house.",
    "mortgage": "The mortgage of the flat runs at 2.1 percent until 2031.",
    "card": "The credit card ending in 9921 was blocked after a theft.",
    "transfer_limit": "Transfers above 5000 need a confirmation by phone.",
    "tax": "The tax adviser is Mr Okonkwo of Lagos Street.",
    "insurance": "The household insurance was cancelled in October.",
    "python": "The user writes Python and dislikes Java.",
    "editor": "The user's editor is Neovim with a dark theme.",
    "deploy": "Deployments happen on Tuesdays and never on Fridays.",
    "database": "The payment system runs on PostgreSQL 16.",
    "incident": "In the last outage the certificate of the load balancer had expired.",
    "running": "The user trains for a half marathon in Valencia.",
    "knee": "The user's left knee was operated on in 2023.",
    "piano": "The user practises the piano every evening.",
    "newsletter": "The user does not want any marketing e-mails.",
    "phone": "The user can be reached by phone after six in the evening.",
    "address": "The user moved to Bahnhofstraße 12 in Zürich.",
    "steuer": "Die Steuererklärung wird jedes Jahr im August abgegeben.",
    "mercado": "El usuario compra fruta en el mercado los sábados.",
    "budget": "The budget of the kitchen renovation is 18000 euros.",
}


@dataclass(frozen=True, slots=True)
class Query:
    text: str
    answers: tuple[str, ...]
    kind: str


QUERIES = [
    Query("Which currency do the reports use, USD?", ("currency",), "same words"),
    Query("Project Phoenix", ("phoenix", "phoenix_deadline"), "same words"),
    Query("peanuts allergy", ("peanuts",), "same words"),
    Query("aisle seat on the flight", ("seat",), "same words"),
    Query("Where is the household insurance?", ("insurance",), "same words"),
    Query("half marathon", ("running",), "same words"),
    Query("investment risk", ("risk",), "other forms"),
    Query("What reporting does she want?", ("currency",), "other forms"),
    Query("repairing the car", ("garage",), "other forms"),
    Query("When do we deploy?", ("deploy",), "other forms"),
    Query("saving for houses", ("savings",), "other forms"),
    Query("expiry of passports", ("passport",), "other forms"),
    Query("migrating payments", ("phoenix",), "other forms"),
    Query("Is a vegetarian's mushroom dish fine?", ("vegetarian",), "other forms"),
    Query("practising piano in the evenings", ("piano",), "other forms"),
    Query("confirm a transfer", ("transfer_limit",), "other forms"),
    Query("Who is Katarzina Wojcik?", ("manager",), "names"),
    Query("Okonkwos office", ("tax",), "names"),
    Query("Zoe's school", ("daughter",), "names"),
    Query("Delacroy garage", ("garage",), "names"),
    Query("Megane", ("car",), "names"),
    Query("neo vim setup", ("editor",), "names"),
    Query("Postgres version", ("database",), "names"),
    Query("Bahnhofstrasse, Zurich", ("address",), "names"),
    Query("Wann ist die Steuer fällig?", ("steuer",), "other languages"),
    Query("Steuererklärungen", ("steuer",), "other languages"),
    Query("mercados y frutas", ("mercado",), "other languages"),
    Query("¿Qué compro el sábado?", ("mercado",), "other languages"),
    Query("proyecto Phoenix", ("phoenix", "phoenix_deadline"), "other languages"),
    Query("Kreditkarte gestohlen", ("card",), "other languages"),
    Query("What must not be in her food?", ("peanuts", "vegetarian"), "paraphrases"),
    Query("name of the pet", ("dog",), "paraphrases"),
    Query("How does she commute?", ("car",), "paraphrases"),
    Query("vacation in Japan", ("kyoto",), "paraphrases"),
    Query("interest rate of the home loan", ("mortgage",), "paraphrases"),
    Query("favourite drink", ("coffee",), "paraphrases"),
    Query("earliest time for a call", ("phone", "morning"), "paraphrases"),
    Query("programming language of choice", ("python",), "paraphrases"),
]

FACTS_OF_LANGUAGES = {
    "de_flight": "Fliegt am 2026-03-03 nach Rom.",
    "de_home": "Ist 2024 von Hamburg nach Köln umgezogen.",
    "de_meat": "Der Benutzer isst kein Fleisch.",
    "de_fish": "Die Schwester isst gern Fisch.",
    "it_flight": "Il 2026-03-03 vola a Roma.",
    "it_home": "Nel 2024 si è trasferito da Torino a Bologna.",
    "it_meat": "L'utente non mangia carne.",
    "it_tea": "Beve il tè senza zucchero.",
    "nl_flight": "Vliegt op 2026-03-03 naar Rome.",
    "nl_home": "Is in 2024 van Utrecht naar Groningen verhuisd.",
    "nl_meat": "De gebruiker eet geen vlees.",
    "nl_egg": "Eet elke ochtend een ei.",
    "ru_flight": "Летит в Рим 2026-03-03.",
    "ru_home": "В 2024 году переехал из Казани в Томск.",
    "ru_meat": "Пользователь не ест мясо.",
    "ru_hedgehog": "У дочери живёт ёж.",
    "ar_flight": "يسافر إلى روما في 2026-03-03.",
    "ar_home": "انتقل من القاهرة إلى الإسكندرية في 2024.",
    "ar_meat": "المستخدم لا يأكل اللحم.",
    "ar_books": "يُحِبُّ قِرَاءَةَ الكُتُبِ مَسَاءً.",
    "he_flight": "טס לרומא ב-2026-03-03.",
    "he_home": "עבר מחיפה לתל אביב ב-2024.",
    "he_meat": "המשתמש לא אוכל בשר.",
    "he_peace": "שָׁלוֹם הוא שם הבן.",
    "hi_flight": "2026-03-03 को रोम की उड़ान है।",
    "hi_home": "2024 में दिल्ली से पुणे गए।",
    "hi_meat": "उपयोगकर्ता मांस नहीं खाता है।",
    "hi_charity": "हर महीने दान देता है।",
    "hi_day": "दिन में सोता है।",
    "ja_flight": "2026-03-03に飛行機でローマへ行く。",
    "ja_home": "2024年に大阪から名古屋へ引っ越した。",
    "ja_meat": "利用者は肉を食べない。",
    "ja_dog": "庭で犬を飼っている。",
    "ja_cat": "猫は苦手だ。",
    "zh_flight": "2026-03-03飞往罗马。",
    "zh_home": "2024年从上海搬到成都。",
    "zh_meat": "用户不吃牛排。",
    "zh_tea": "每天早上喝茶。",
    "th_flight": "บินไปโรมวันที่ 2026-03-03",
    "th_home": "ย้ายจากเชียงใหม่ไปภูเก็ตในปี 2024",
    "th_meat": "ผู้ใช้ไม่กินเนื้อวัว",
    "th_snake": "ลูกชายเลี้ยงงูสองตัว",
    "th_crab": "แพ้ปู",
}

QUERIES_OF_LANGUAGES = [
    Query("Wann fliegt sie nach Rom?", ("de_flight",), "German"),
    Query("Umzug nach Köln", ("de_home",), "German"),
    Query("Fleischgerichte", ("de_meat",), "German"),
    Query("Koeln oder Koln?", ("de_home",), "German"),
    Query("volo per Roma", ("it_flight",), "Italian"),
    Query("quando si trasferì a Bologna?", ("it_home",), "Italian"),
    Query("carne", ("it_meat",), "Italian"),
    Query("tè", ("it_tea",), "Italian"),
    Query("vlucht naar Rome", ("nl_flight",), "Dutch"),
    Query("de verhuizing naar Groningen", ("nl_home",), "Dutch"),
    Query("Mag zij vlees?", ("nl_meat",), "Dutch"),
    Query("eieren of een ei", ("nl_egg",), "Dutch"),
    Query("Когда полёт в Рим?", ("ru_flight",), "Russian"),
    Query("переезд в Томск", ("ru_home",), "Russian"),
    Query("блюдо из мяса", ("ru_meat",), "Russian"),
    Query("еж", ("ru_hedgehog",), "Russian"),
    Query("السفر إلى روما", ("ar_flight",), "Arabic"),
    Query("القاهره", ("ar_home",), "Arabic"),
    Query("هل يأكل اللَّحْمَ؟", ("ar_meat",), "Arabic"),
    Query("كتب", ("ar_books",), "Arabic"),
    Query("טיסה לרומא", ("he_flight",), "Hebrew"),
    Query("תל אביב", ("he_home",), "Hebrew"),
    Query("בָּשָׂר", ("he_meat",), "Hebrew"),
    Query("שלום", ("he_peace",), "Hebrew"),
    Query("रोम कब जाना है?", ("hi_flight",), "Hindi"),
    Query("पुणे", ("hi_home",), "Hindi"),
    Query("मांस", ("hi_meat",), "Hindi"),
    Query("दान", ("hi_charity",), "Hindi"),
    Query("दिन", ("hi_day",), "Hindi"),
    Query("ローマ旅行", ("ja_flight",), "Japanese"),
    Query("名古屋", ("ja_home",), "Japanese"),
    Query("肉", ("ja_meat",), "Japanese"),
    Query("犬", ("ja_dog",), "Japanese"),
    Query("猫の話", ("ja_cat",), "Japanese"),
    Query("去罗马的航班", ("zh_flight",), "Chinese"),
    Query("成都", ("zh_home",), "Chinese"),
    Query("吃牛排吗", ("zh_meat",), "Chinese"),
    Query("茶", ("zh_tea",), "Chinese"),
    Query("เที่ยวบินไปโรม", ("th_flight",), "Thai"),
    Query("ภูเก็ต", ("th_home",), "Thai"),
    Query("กินเนื้อได้ไหม", ("th_meat",), "Thai"),
    Query("งู", ("th_snake",), "Thai"),
    Query("ปู", ("th_crab",), "Thai"),
]

KINDS = list(dict.fromkeys(query.kind for query in QUERIES))
LANGUAGES = list(dict.fromkeys(query.kind for query in QUERIES_OF_LANGUAGES))

_ENDINGS = ("ingly", "ments", "ation", "ings", "ment", "ies", "ing", "ers", "ed", "es", "er", "en", "ly", "s", "e", "y")


def stems(text: str) -> list[str]:
    """The words without a common English ending: a way of cutting a text that was tried."""
    return [_stem(word) for word in words(text)]


def _stem(word: str) -> str:
    endings = (ending for ending in _ENDINGS if word.endswith(ending) and len(word) - len(ending) >= 3)
    return word.removesuffix(next(endings, ""))


def recall(
    scores_of: Callable[[str], Sequence[float]],
    k: int,
    kind: str | None = None,
    facts: Mapping[str, str] = FACTS,
    queries: Sequence[Query] = tuple(QUERIES),
) -> float:
    """How much of what answers a query is among the first `k` facts, on average. A score of 0 finds nothing."""
    names = list(facts)
    found = []
    for query in queries:
        if kind in (None, query.kind):
            scores = dict(zip(names, scores_of(query.text), strict=True))
            first = sorted((name for name in names if scores[name] > 0), key=lambda name: -scores[name])[:k]
            found.append(len({*first} & {*query.answers}) / min(k, len(query.answers)))
    return sum(found) / len(found)

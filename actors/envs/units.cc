#include "actors/envs/units.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "actors/envs/latex_words.h"
#include "core/ascii.h"

namespace orrery::actors {
namespace {

using Pair = std::pair<std::string_view, std::string_view>;

template <size_t N>
std::string_view find(const Pair (&pairs)[N], std::string_view word) {
  for (const auto& [from, to] : pairs) {
    if (from == word) return to;
  }
  return {};
}

// Case counts here: mW is not MW.
constexpr Pair kAbbreviations[] = {{"nm", "nanometer"},
                                   {"mm", "millimeter"},
                                   {"cm", "centimeter"},
                                   {"Cm", "centimeter"},
                                   {"CM", "centimeter"},
                                   {"dm", "decimeter"},
                                   {"km", "kilometer"},
                                   {"Km", "kilometer"},
                                   {"KM", "kilometer"},
                                   {"mg", "milligram"},
                                   {"gm", "gram"},
                                   {"gms", "gram"},
                                   {"kg", "kilogram"},
                                   {"kgs", "kilogram"},
                                   {"Kg", "kilogram"},
                                   {"KG", "kilogram"},
                                   {"ml", "milliliter"},
                                   {"mL", "milliliter"},
                                   {"cl", "centiliter"},
                                   {"cL", "centiliter"},
                                   {"dl", "deciliter"},
                                   {"dL", "deciliter"},
                                   {"ms", "millisecond"},
                                   {"ns", "nanosecond"},
                                   {"sec", "second"},
                                   {"secs", "second"},
                                   {"min", "minute"},
                                   {"mins", "minute"},
                                   {"hr", "hour"},
                                   {"hrs", "hour"},
                                   {"yr", "year"},
                                   {"yrs", "year"},
                                   {"in", "inch"},
                                   {"ft", "foot"},
                                   {"FT", "foot"},
                                   {"yd", "yard"},
                                   {"yds", "yard"},
                                   {"mi", "mile"},
                                   {"lb", "pound"},
                                   {"lbs", "pound"},
                                   {"LBS", "pound"},
                                   {"oz", "ounce"},
                                   {"gal", "gallon"},
                                   {"pt", "pint"},
                                   {"qt", "quart"},
                                   {"tbsp", "tablespoon"},
                                   {"tsp", "teaspoon"},
                                   {"cc", "centimeter^3"},
                                   {"sqft", "foot^2"},
                                   {"mph", "mile/hour"},
                                   {"MPH", "mile/hour"},
                                   {"kph", "kilometer/hour"},
                                   {"kmh", "kilometer/hour"},
                                   {"kmph", "kilometer/hour"},
                                   {"mps", "meter/second"},
                                   {"fps", "foot/second"},
                                   {"rpm", "rpm"},
                                   {"Pa", "pascal"},
                                   {"kPa", "kilopascal"},
                                   {"MPa", "megapascal"},
                                   {"hPa", "hectopascal"},
                                   {"psi", "psi"},
                                   {"atm", "atmosphere"},
                                   {"Hz", "hertz"},
                                   {"kHz", "kilohertz"},
                                   {"MHz", "megahertz"},
                                   {"GHz", "gigahertz"},
                                   {"mW", "milliwatt"},
                                   {"kW", "kilowatt"},
                                   {"MW", "megawatt"},
                                   {"GW", "gigawatt"},
                                   {"kWh", "kilowatthour"},
                                   {"mV", "millivolt"},
                                   {"kV", "kilovolt"},
                                   {"mA", "milliampere"},
                                   {"kJ", "kilojoule"},
                                   {"MJ", "megajoule"},
                                   {"kN", "kilonewton"},
                                   {"eV", "electronvolt"},
                                   {"keV", "kiloelectronvolt"},
                                   {"MeV", "megaelectronvolt"},
                                   {"mol", "mole"},
                                   {"mmol", "millimole"},
                                   {"cal", "calorie"},
                                   {"kcal", "kilocalorie"},
                                   {"kB", "kilobyte"},
                                   {"KB", "kilobyte"},
                                   {"MB", "megabyte"},
                                   {"GB", "gigabyte"},
                                   {"TB", "terabyte"},
                                   {"rad", "radian"},
                                   {"deg", "°"},
                                   {"am", "am"},
                                   {"AM", "am"},
                                   {"pm", "pm"},
                                   {"PM", "pm"},
                                   {"USD", "$"},
                                   {"EUR", "euro"},
                                   {"GBP", "pound"},
                                   {"Rs", "rupee"}};

constexpr std::string_view kPlainAbbreviations[] = {"mm",  "cm",   "km", "kg",  "mL",  "mg",
                                                    "lb",  "lbs",  "ft", "kWh", "mph", "kph",
                                                    "hrs", "kmph", "oz", "yd"};

// All words below are in lower case.
constexpr std::string_view kPrefixes[] = {"nano",  "micro", "milli", "centi", "deci",
                                          "hecto", "kilo",  "mega",  "giga"};
constexpr std::string_view kPrefixed[] = {"meter",  "gram",  "liter",  "second", "watt",  "volt",
                                          "ampere", "joule", "newton", "pascal", "hertz", "calorie",
                                          "mole",   "byte",  "bit",    "ohm"};

constexpr std::string_view kMeasures[] = {
    "inch",   "foot",        "yard",       "mile",       "acre",   "hectare", "ounce",  "pound",
    "ton",    "tonne",       "stone",      "kilo",       "pint",   "quart",   "gallon", "bushel",
    "cup",    "spoon",       "teaspoon",   "tablespoon", "barrel", "minute",  "hour",   "day",
    "week",   "month",       "year",       "decade",     "night",  "morning", "radian", "unit",
    "lap",    "amp",         "atmosphere", "knot",       "cent",   "euro",    "yen",    "rupee",
    "won",    "penny",       "nickel",     "dime",       "peso",   "franc",   "yuan",   "buck",
    "kelvin", "kilowatthour"};

// Things that word problems count.
constexpr std::string_view kThings[] = {
    "animal", "ant", "app", "apple", "baby", "bag", "ball", "balloon", "banana", "basket", "batch",
    "bead", "bear", "bedroom", "bee", "berry", "bike", "bicycle", "bill", "bird", "biscuit",
    "blanket", "block", "boat", "bolt", "book", "bottle", "bouquet", "box", "boy", "bracelet",
    "brick", "brownie", "bucket", "bug", "building", "bulb", "bus", "butterfly", "button", "cake",
    "can", "candle", "candy", "car", "card", "carrot", "carton", "cat", "chair", "chicken", "chip",
    "chocolate", "class", "clip", "coin", "color", "container", "cookie", "copy", "cow", "cracker",
    "crate", "crayon", "crew", "cupcake", "customer", "daisy", "dish", "dog", "doll", "donut",
    "doughnut", "dress", "drink", "duck", "egg", "elephant", "email", "employee", "envelope",
    "episode", "eraser", "family", "fence", "fire", "firework", "floor", "flower", "fly", "flight",
    "frog", "fruit", "game", "garden", "gem", "gift", "girl", "glass", "goal", "goat", "group",
    "guest", "hat", "helmet", "horse", "hotdog", "house", "icicle", "insect", "item", "jar",
    "jewel", "key", "kid", "kitten", "leg", "lego", "lemon", "letter", "light", "lion", "lollipop",
    "machine", "magazine", "mango", "marble", "marshmallow", "match", "meal", "meatball", "member",
    "message", "monkey", "movie", "muffin", "necklace", "newspaper", "notebook", "novel", "onion",
    "orange", "outfit", "package", "packet", "page", "painting", "pancake", "paper", "parent",
    "passenger", "peach", "pear", "pebble", "pen", "pencil", "pet", "petal", "phone", "photo",
    "picture", "pie", "piece", "pig", "pill", "pizza", "plane", "plant", "plate", "player", "plum",
    "potato", "present", "problem", "puppy", "puzzle", "question", "rabbit", "ribbon", "ring",
    "room", "rose", "sandwich", "sausage", "school", "scoop", "seashell", "seat", "seed", "serving",
    "shark", "sheet", "shell", "ship", "shirt", "shoe", "shop", "sibling", "skirt", "slice",
    "snack", "sock", "soda", "song", "stamp", "star", "stick", "sticker", "store", "strawberry",
    "student", "sweater", "sweet", "table", "tadpole", "teacher", "team", "tent", "ticket", "tile",
    "tire", "token", "tomato", "towel", "toy", "train", "tray", "tree", "trip", "truck", "tulip",
    "turtle", "vehicle", "visitor", "vote", "watermelon", "wheel", "window", "word", "worker",
    "zombie",
    // and those of mathematics
    "arrangement", "choice", "combination", "committee", "configuration", "diagonal", "divisor",
    "edge", "element", "handshake", "integer", "outcome", "permutation", "polygon", "possibility",
    "rectangle", "selection", "sequence", "solution", "subset", "triangle", "value", "way"};

// Only the plural counts, as the singular says something else: "12 point five",
// "2 root", "3 square".
constexpr std::string_view kPlurals[] = {
    "points",  "roots",         "squares", "cubes",   "times",   "numbers", "digits",   "multiples",
    "factors", "primes",        "lines",   "circles", "faces",   "terms",   "vertices", "angles",
    "sides",   "intersections", "steps",   "rows",    "columns", "people",  "children", "men",
    "women",   "friends",       "nails",   "clothes", "fish",    "sheep",   "deer",     "teeth",
    "mice",    "geese",         "loaves",  "leaves",  "shelves", "knives",  "wolves",   "calves",
    "scarves", "cattle",        "pants",   "jeans",   "scissors"};

constexpr Pair kOtherForms[] = {{"feet", "foot"},      {"inches", "inch"},   {"pennies", "penny"},
                                {"percent", "%"},      {"dollar", "$"},      {"dollars", "$"},
                                {"degree", "°"},       {"degrees", "°"},     {"meters", "meter"},
                                {"kelvins", "kelvin"}, {"person", "people"}, {"child", "children"},
                                {"man", "men"},        {"woman", "women"},   {"friend", "friends"},
                                {"amps", "ampere"},    {"amp", "ampere"},    {"kilo", "kilogram"},
                                {"kilos", "kilogram"}, {"won", "won"},       {"bucks", "$"}};

constexpr std::string_view kIdle[] = {"different", "distinct", "possible", "total",
                                      "ordered",   "positive", "such"};

/// Whether a word is a unit or a thing in the singular.
bool is_known(std::string_view word) { return is_measure(word) || contains(kThings, word); }

}  // namespace

std::string unit_name(std::string_view word) {
  constexpr size_t kLongest = 24;
  if (word.size() < 2 || word.size() > kLongest) return "";
  if (const auto name = find(kAbbreviations, word); !name.empty()) return std::string(name);
  std::string name = to_lower(word);
  for (const std::string_view british : {"metre", "litre"}) {
    if (const size_t at = name.find(british); at != std::string::npos)
      name.replace(at + 3, 2, "er");
  }
  if (const auto other = find(kOtherForms, name); !other.empty()) return std::string(other);
  if (contains(kPlurals, name) || is_known(name)) return name;
  if (!name.ends_with('s')) return "";
  const std::string stem = name.substr(0, name.size() - 1);
  if (is_known(stem)) return stem;
  if (stem.ends_with("ie") && is_known(stem.substr(0, stem.size() - 2) + "y"))
    return stem.substr(0, stem.size() - 2) + "y";
  if (stem.ends_with('e') && is_known(stem.substr(0, stem.size() - 1)))
    return stem.substr(0, stem.size() - 1);
  return "";
}

std::string_view letter_unit(char letter) {
  constexpr std::pair<char, std::string_view> kLetters[] = {
      {'m', "meter"},  {'g', "gram"},   {'s', "second"}, {'h', "hour"},
      {'L', "liter"},  {'l', "liter"},  {'W', "watt"},   {'V', "volt"},
      {'A', "ampere"}, {'N', "newton"}, {'J', "joule"}};
  for (const auto& [c, name] : kLetters) {
    if (c == letter) return name;
  }
  return {};
}

bool is_plain_abbreviation(std::string_view word) { return contains(kPlainAbbreviations, word); }

bool is_measure(std::string_view name) {
  if (contains(kMeasures, name) || contains(kPrefixed, name)) return true;
  return std::any_of(std::begin(kPrefixes), std::end(kPrefixes), [&](std::string_view prefix) {
    return name.starts_with(prefix) && contains(kPrefixed, name.substr(prefix.size()));
  });
}

bool is_idle_adjective(std::string_view word) { return contains(kIdle, to_lower(word)); }

}  // namespace orrery::actors

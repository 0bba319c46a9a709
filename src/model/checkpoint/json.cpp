#include "json.hpp"

#include <set>

#include "annulus/base/error.hpp"

namespace annulus::checkpoint {

nlohmann::json parse_json(const std::string& path, std::string_view text, int deepest) {
  using Event = nlohmann::json::parse_event_t;
  std::set<std::string> names;
  const auto check = [&](int depth, Event event, const nlohmann::json& value) {
    if (event == Event::object_start || event == Event::array_start)
      require<Failure::file>(depth < deepest, path, ": its JSON nests more than ", deepest,
                             " deep, which no checkpoint's does");
    if (event == Event::key && depth == 1)
      require<Failure::file>(names.insert(value.get<std::string>()).second, path, ": its JSON names '",
                             value.get<std::string>(), "' twice");
    return true;
  };
  try {
    return nlohmann::json::parse(text, check);
  } catch (const nlohmann::json::parse_error& error) {
    throw Error(Failure::file, sentence(path, ": its JSON is not valid from byte ", error.byte, " on"));
  } catch (const nlohmann::json::exception&) {
    throw Error(Failure::file, sentence(path, ": its JSON has a number that is out of range"));
  }
}

}  // namespace annulus::checkpoint

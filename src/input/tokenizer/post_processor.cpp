#include "input/tokenizer/post_processor.hpp"

#include <string>

namespace annulus {
namespace {

constexpr int deepest = 16;

void surround(Surroundings& all, const Surroundings& more) {
  all.before.insert(all.before.begin(), more.before.begin(), more.before.end());
  all.after.insert(all.after.end(), more.after.begin(), more.after.end());
}

// ["[CLS]", 101]
std::uint32_t id_of_pair(const Node& node) {
  node.require(node.entries() == 2, "must be a token and its id");
  return node.entry(1).id();
}

Surroundings read_template(const Node& node) {
  Surroundings its;
  bool behind = false;
  const Node parts = node.at("single"), tokens = node.at("special_tokens");
  for (std::size_t n = 0; n < parts.entries(); ++n) {
    const Node part = parts.entry(n), sequence = part.at("Sequence"), token = part.at("SpecialToken");
    if (!sequence.is_null()) {
      part.require(!behind && sequence.at("id").text() == "A", "must be the one text A of a template for single texts");
      behind = true;
      continue;
    }
    part.require(!token.is_null(), "must be a Sequence or a SpecialToken");
    const Node entry = tokens.at(token.at("id").text());
    entry.require(!entry.is_null(), "is missing, and the template names it");
    const Node ids = entry.at("ids");
    for (std::size_t i = 0; i < ids.entries(); ++i) (behind ? its.after : its.before).push_back(ids.entry(i).id());
  }
  parts.require(behind, "must have a text in it");
  return its;
}

void read(const Node& node, Surroundings& all, int depth) {
  if (node.is_null()) return;
  const std::string type = node.type();
  if (type == "ByteLevel") return;  // it only trims offsets
  if (type == "TemplateProcessing") return surround(all, read_template(node));
  if (type == "BertProcessing" || type == "RobertaProcessing")
    return surround(all, {{id_of_pair(node.at("cls"))}, {id_of_pair(node.at("sep"))}});
  node.require(type == "Sequence", "is of a type that is not supported: ", quoted(type));
  node.require(depth < deepest, "is a sequence in more than ", deepest, " others");
  const Node parts = node.at("processors");
  for (std::size_t n = 0; n < parts.entries(); ++n) read(parts.entry(n), all, depth + 1);
}

}  // namespace

Surroundings read_post_processor(const Node& node) {
  Surroundings all;
  read(node, all, 0);
  return all;
}

}  // namespace annulus

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

#include "annulus/base/error.hpp"
#include "app/commands/commands.hpp"
#include "app/config.hpp"
#include "app/context.hpp"

namespace annulus::app {
namespace {

// "mask = causal, tokens = 64"
std::string said_by_file(const Settings& settings) {
  std::string text;
  for (const Setting& setting : settings.all())
    if (setting.given() && setting.origin != "command line")
      text += sentence(text.empty() ? "" : ", ", setting.option.name, " = ", setting.text);
  return text;
}

void require_printed() {
  const bool printed = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  require<Failure::file>(printed, "the standard output cannot be written: ", std::strerror(errno));
}

int run(Context& context) {
  try {
    Request request;
    context.agree([&] {
      request = read_command_line(context.arguments(), commands(), ANNULUS_VERSION);
      return request.settings ? said_by_file(*request.settings) : "";
    });
    if (request.command == nullptr) {
      if (context.lead()) std::fputs(request.page.c_str(), stdout);
      return 0;
    }
    for (const Setting& setting : request.settings->all())
      if (setting.option.name == "transport") context.choose_transport(setting.text);
    return request.command->run(*request.settings, context);
  } catch (const Agreed& e) {  // everybody knows: the lead speaks, all leave together
    if (context.lead()) std::fprintf(stderr, "annulus: %s\n", e.what());
    return e.exit_code();
  }
}

}  // namespace
}  // namespace annulus::app

int main(int argc, char** argv) {
  using namespace annulus;
  std::unique_ptr<app::Context> context;
  try {
    context = std::make_unique<app::Context>(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc));
    const int code = app::run(*context);
    if (code == 0) app::require_printed();
    return code;
  } catch (const Error& e) {
    // what is said of usage after all have agreed on the options is the same on every rank
    const bool everybody = e.failure() == Failure::usage;
    const bool speaks = context == nullptr || (everybody ? context->lead() : context->speaks());
    if (speaks) std::fprintf(stderr, "annulus: %s\n", e.what());
    if (!everybody && context != nullptr) context->abandon(e);
    return e.exit_code();
  } catch (const std::bad_alloc&) {
    const Error error(Failure::fit, "there is not enough memory");
    if (context == nullptr || context->speaks()) std::fprintf(stderr, "annulus: %s\n", error.what());
    if (context != nullptr) context->abandon(error);
    return error.exit_code();
  } catch (const std::exception& e) {
    if (context == nullptr || context->speaks()) std::fprintf(stderr, "annulus: %s\n", e.what());
    if (context != nullptr) context->abandon(Error(Failure::runtime, e.what()));
    return 1;
  }
}

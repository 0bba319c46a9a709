#include "app/commands/commands.hpp"
namespace annulus::app {
Command verify_command() { return {.name = "verify", .summary = "", .run = nullptr}; }
}  // namespace annulus::app

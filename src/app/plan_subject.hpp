#pragma once
#include <optional>

#include "app/config.hpp"
#include "app/hardware.hpp"
#include "app/plan_page.hpp"

namespace annulus::app {

/// What is to be planned, whatever the ranks.
struct PlanSubject {
  AttentionShape shape;
  Mask mask;
  FileBytes files;
};

/// That of `annulus attend` with the input that is given, or, without one, made up from options. Throws Error (usage) or (file).
PlanSubject plan_subject(const Settings& settings, bool backward, const std::optional<Hardware>& hardware);

}  // namespace annulus::app

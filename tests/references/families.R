# Reference values for the other families of a scalar response, and for what is
# estimated beside the coefficients.
#
#   Rscript tests/references/families.R
#
# after glm.R, whose data sets it reads.  Writes families.json and its own
# data/*.csv.  Needs MASS, statmod and brglm2.
#
# Fits, polishing and guards are those of glm.R (common.R).  Where the dispersion
# is 1 by definition (negative binomial, geometric, exponential) the errors are
# those of summary(fit, dispersion = 1).  Where R has no link (loglog,
# log-complement, powers below 0) it is written here, as help(make.link) shows.
# Weights of type "frequency": R fits the rows written out.

suppressPackageStartupMessages({ library(MASS); library(statmod); library(brglm2) })
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
here <- if (length(script)) dirname(script[1]) else "."
source(file.path(here, "common.R"))


# ---------------------------------------------------------------------- data

# brglm2; lizards is printed in Schoener (1970), endometrial in Heinze and Schemper (2002)
add("endometrial", endometrial)
add("lizards", lizards)
# each has a coefficient without a finite maximum likelihood estimate
add("all_or_nothing", data.frame(
  dose = c(1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4), dead = c(0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1)))
add("one_arm_cured", data.frame(
  arm = rep(c("a", "b", "c"), each = 4), stage = rep(1:4, 3),
  cured = c(8, 6, 5, 2, 12, 11, 13, 12, 9, 7, 4, 3), ill = c(4, 5, 7, 9, 0, 0, 0, 0, 3, 6, 6, 10)))
add("region_without_claims", data.frame(
  region = rep(c("north", "east", "south", "west"), each = 5), age = rep(c(20, 30, 40, 50, 60), 4),
  years = c(10, 14, 9, 12, 8, 20, 25, 24, 18, 16, 6, 7, 5, 8, 9, 30, 28, 35, 26, 22),
  claims = c(3, 2, 2, 1, 0, 5, 4, 2, 3, 1, 0, 0, 0, 0, 0, 9, 6, 7, 3, 2)))

# yearly cost of a policy: a compound Poisson sum of gamma claims, so often 0
set.seed(19, kind = "Mersenne-Twister", normal.kind = "Inversion", sample.kind = "Rejection")
n <- 240
policies <- data.frame(area = sample(c("A", "B", "C"), n, TRUE), age = sample(18:80, n, TRUE),
                       exposure = sample(1:4, n, TRUE) / 4)
counts <- rpois(n, policies$exposure * exp(0.4 + 0.5 * (policies$area == "C") - 0.012 * (policies$age - 40)))
policies$copies <- 1 + rpois(n, 0.6)
policies$cost <- round(vapply(counts, function(k) sum(rgamma(k, 2, 0.5)), 0), 2)
add("policies", policies)


# ------------------------------------------------------------------ families

user_link <- function(name, linkfun, linkinv, mu.eta, valideta = function(eta) TRUE)
  structure(list(linkfun = linkfun, linkinv = linkinv, mu.eta = mu.eta, valideta = valideta, name = name),
            class = "link-glm")

# exponent: of the power link
link_of <- function(link, exponent = NULL) {
  if (link == "power")
    return(user_link("power", function(mu) mu^exponent, function(eta) eta^(1 / exponent),
                     function(eta) eta^(1 / exponent - 1) / exponent, function(eta) all(eta > 0)))
  switch(link,
    inverse_square = make.link("1/mu^2"),
    loglog = user_link("loglog", function(mu) -log(-log(mu)), function(eta) exp(-exp(-eta)),
                       function(eta) exp(-eta - exp(-eta))),
    log_complement = user_link("log_complement", function(mu) log1p(-mu), function(eta) -expm1(eta),
                               function(eta) -exp(eta), function(eta) all(eta < 0)),
    make.link(link))
}

# The variance functions are textbook powers, so quasi() is called by name.
quasi_of <- function(variance, bridge)
  switch(variance,
    "constant" = quasi(bridge, "constant"), "mu" = quasi(bridge, "mu"), "mu^2" = quasi(bridge, "mu^2"),
    "mu^3" = quasi(bridge, "mu^3"), "mu(1-mu)" = quasi(bridge, "mu(1-mu)"))

family_of <- function(family, bridge, arguments)
  switch(family,
    gaussian = gaussian(bridge), poisson = poisson(bridge), binomial = binomial(bridge), gamma = Gamma(bridge),
    exponential = Gamma(bridge), inverse_gaussian = inverse.gaussian(bridge),
    geometric = negative.binomial(1, bridge), negative_binomial = negative.binomial(arguments$theta, bridge),
    quasipoisson = quasipoisson(bridge), quasibinomial = quasibinomial(bridge),
    quasi = quasi_of(arguments$variance, bridge),
    tweedie = replace(statmod::tweedie(arguments$power, 1),
                      c("linkfun", "linkinv", "mu.eta", "valideta"),
                      unclass(bridge)[c("linkfun", "linkinv", "mu.eta", "valideta")]))

KNOWN <- c("poisson", "binomial", "exponential", "geometric", "negative_binomial")
BOUNDED <- c("binomial", "quasibinomial")
NO_LIKELIHOOD <- c("quasi", "quasipoisson", "quasibinomial", "tweedie")

likelihood_of <- function(family, weighted) {
  if (family %in% NO_LIKELIHOOD) return(NA)
  if (family == "exponential")
    return(if (weighted) NA else function(y, mu, w, deviance) sum(dexp(y, 1 / mu, log = TRUE)))
  if (!weighted || family %in% c("gaussian", "binomial")) return(NULL)
  # R takes the weights of inverse.gaussian() as frequencies; the density has dispersion phi / w
  if (family == "inverse_gaussian")
    return(function(y, mu, w, deviance)
      sum(dinvgauss(y, mean = mu, dispersion = deviance / length(y) / w, log = TRUE)))
  NA
}

case <- function(name, data, formula, family, link, ..., weights = NULL, kind = "variance", offset = NULL,
                 exponent = NULL) {
  arguments <- list(...)
  reference(name, data, formula, family, link, fam = family_of(family, link_of(link, exponent), arguments),
            known = family %in% KNOWN, bounded = family %in% BOUNDED || identical(arguments$variance, "mu(1-mu)"),
            weights = weights, kind = kind, offset = offset,
            likelihood = likelihood_of(family, !is.null(weights) && kind == "variance"),
            extra = list(kind = "glm", family_arguments = arguments,
                         link_arguments = if (is.null(exponent)) list() else list(exponent = exponent)))
}

# inverse Gaussian
case("trees_inverse_gaussian_log", "trees", "Volume ~ log(Girth) + log(Height)", "inverse_gaussian", "log")
case("veteran_inverse_gaussian_log", "veteran", "time ~ karno + celltype", "inverse_gaussian", "log")
case("leuk_inverse_gaussian_log", "leuk", "time ~ ag", "inverse_gaussian", "log")
case("airquality_inverse_gaussian_log", "airquality", "Ozone ~ Wind + Temp", "inverse_gaussian", "log")
case("airquality_inverse_gaussian_frequency", "airquality", "Ozone ~ Wind + Temp", "inverse_gaussian", "log", weights = "Month", kind = "frequency")
case("hills_inverse_gaussian_offset", "hills", "time ~ climb", "inverse_gaussian", "log", offset = "log(dist)")
case("hills_inverse_gaussian_weights", "hills", "time ~ log(dist)", "inverse_gaussian", "log", weights = "precision")
case("cpus_inverse_gaussian_log", "cpus", "perf ~ log(mmax) + sqrt(cach) + log(syct)", "inverse_gaussian", "log")
case("clotting_inverse_gaussian_inverse", "clotting", "lot1 ~ log(u)", "inverse_gaussian", "inverse")
case("mtcars_inverse_gaussian_inverse", "mtcars", "mpg ~ wt + hp", "inverse_gaussian", "inverse")
case("mtcars_inverse_gaussian_inverse_weights", "mtcars", "mpg ~ disp + C(am)", "inverse_gaussian", "inverse", weights = "qsec")
case("chickwts_inverse_gaussian_inverse", "chickwts", "weight ~ feed", "inverse_gaussian", "inverse")
case("clotting_inverse_gaussian_inverse_square", "clotting", "lot2 ~ log(u)", "inverse_gaussian", "inverse_square")
case("mtcars_inverse_gaussian_inverse_square", "mtcars", "mpg ~ wt + hp", "inverse_gaussian", "inverse_square")
case("mtcars_inverse_gaussian_inverse_square_weights", "mtcars", "mpg ~ wt + C(cyl)", "inverse_gaussian", "inverse_square", weights = "qsec")
case("chickwts_inverse_gaussian_inverse_square", "chickwts", "weight ~ feed", "inverse_gaussian", "inverse_square")
case("faithful_inverse_gaussian_inverse_square", "faithful", "waiting ~ eruptions", "inverse_gaussian", "inverse_square")
case("veteran_inverse_gaussian_intercept_only", "veteran", "time ~ 1", "inverse_gaussian", "inverse_square")
case("mtcars_inverse_gaussian_identity", "mtcars", "mpg ~ wt + hp", "inverse_gaussian", "identity")
case("Orthodont_inverse_gaussian_identity", "Orthodont", "distance ~ Sex*age", "inverse_gaussian", "identity")
case("faithful_inverse_gaussian_identity", "faithful", "waiting ~ eruptions", "inverse_gaussian", "identity")
case("mtcars_inverse_gaussian_identity_frequency", "mtcars", "mpg ~ wt + C(vs)", "inverse_gaussian", "identity", weights = "carb", kind = "frequency")

# negative binomial, theta given
case("quine_negative_binomial_log", "quine", "Days ~ Eth + Sex + Age + Lrn", "negative_binomial", "log", theta = 1.3)
case("quine_negative_binomial_empty_cell", "quine", "Days ~ Eth + Sex + Age*Lrn", "negative_binomial", "log", theta = 2)
case("epil_negative_binomial_log", "epil", "y ~ lbase*trt + lage + V4", "negative_binomial", "log", theta = 2.5)
case("epil_negative_binomial_frequency", "epil", "y ~ lbase*trt + lage", "negative_binomial", "log", theta = 2.5, weights = "period", kind = "frequency")
case("epil_negative_binomial_offset", "epil", "y ~ trt + C(period)", "negative_binomial", "log", theta = 0.75, offset = "log(base/4)")
case("warpbreaks_negative_binomial_log", "warpbreaks", "breaks ~ wool*tension", "negative_binomial", "log", theta = 10)
case("ships_negative_binomial_offset", "ships", "incidents ~ type + C(year) + C(period)", "negative_binomial", "log", theta = 20, offset = "log(service)")
case("Insurance_negative_binomial_offset", "Insurance", "Claims ~ C(District) + Group + Age", "negative_binomial", "log", theta = 50, offset = "log(Holders)")
case("discoveries_negative_binomial_intercept_only", "discoveries", "count ~ 1", "negative_binomial", "log", theta = 5)
case("quine_negative_binomial_sqrt", "quine", "Days ~ Eth + Sex + Lrn", "negative_binomial", "sqrt", theta = 1.3)
case("warpbreaks_negative_binomial_sqrt", "warpbreaks", "breaks ~ wool*tension", "negative_binomial", "sqrt", theta = 10)
case("InsectSprays_negative_binomial_sqrt", "InsectSprays", "count ~ spray", "negative_binomial", "sqrt", theta = 28)
case("discoveries_negative_binomial_sqrt", "discoveries", "count ~ I(year - 1900)", "negative_binomial", "sqrt", theta = 5)
case("warpbreaks_negative_binomial_identity", "warpbreaks", "breaks ~ wool + tension", "negative_binomial", "identity", theta = 10)
case("InsectSprays_negative_binomial_identity", "InsectSprays", "count ~ spray - 1", "negative_binomial", "identity", theta = 28)
case("cars_negative_binomial_identity", "cars", "dist ~ speed", "negative_binomial", "identity", theta = 5)
case("dobson_negative_binomial_identity", "dobson", "counts ~ outcome", "negative_binomial", "identity", theta = 40)

# geometric
case("quine_geometric_log", "quine", "Days ~ Eth + Sex + Age + Lrn", "geometric", "log")
case("epil_geometric_frequency", "epil", "y ~ lbase + trt + V4", "geometric", "log", weights = "period", kind = "frequency")
case("discoveries_geometric_log", "discoveries", "count ~ I(year - 1900) + I((year - 1900)**2)", "geometric", "log")
case("ships_geometric_offset", "ships", "incidents ~ type + C(period)", "geometric", "log", offset = "log(service)")
case("quine_geometric_sqrt", "quine", "Days ~ Eth + Lrn", "geometric", "sqrt")
case("InsectSprays_geometric_sqrt", "InsectSprays", "count ~ spray", "geometric", "sqrt")
case("warpbreaks_geometric_identity", "warpbreaks", "breaks ~ wool + tension", "geometric", "identity")
case("cars_geometric_identity", "cars", "dist ~ speed", "geometric", "identity")

# exponential
case("leuk_exponential_log", "leuk", "time ~ ag + log(wbc)", "exponential", "log")
case("veteran_exponential_log", "veteran", "time ~ karno + celltype + C(trt)", "exponential", "log")
case("lung_exponential_frequency", "lung", "time ~ age + ph_karno", "exponential", "log", weights = "sex", kind = "frequency")
case("hills_exponential_offset", "hills", "time ~ climb", "exponential", "log", offset = "log(dist)")
case("veteran_exponential_weights", "veteran", "time ~ karno", "exponential", "log", weights = "diagtime")
case("clotting_exponential_inverse", "clotting", "lot1 ~ log(u)", "exponential", "inverse")
case("veteran_exponential_inverse", "veteran", "time ~ celltype", "exponential", "inverse")
case("mtcars_exponential_inverse", "mtcars", "disp ~ wt", "exponential", "inverse")
case("cars_exponential_identity", "cars", "dist ~ speed", "exponential", "identity")
case("mtcars_exponential_identity", "mtcars", "mpg ~ wt", "exponential", "identity")
case("faithful_exponential_identity", "faithful", "eruptions ~ waiting", "exponential", "identity")

# quasi
case("mtcars_quasi_constant", "mtcars", "mpg ~ wt + hp", "quasi", "identity", variance = "constant")
case("trees_quasi_constant_log", "trees", "Volume ~ log(Girth) + log(Height)", "quasi", "log", variance = "constant")
case("Puromycin_quasi_constant_inverse", "Puromycin", "rate ~ state + I(1/conc)", "quasi", "inverse", variance = "constant")
case("hills_quasi_constant_weights", "hills", "time ~ dist + climb", "quasi", "identity", variance = "constant", weights = "precision")
case("quine_quasi_mu_log", "quine", "Days ~ Eth + Sex + Age + Lrn", "quasi", "log", variance = "mu")
case("warpbreaks_quasi_mu_identity", "warpbreaks", "breaks ~ wool + tension", "quasi", "identity", variance = "mu")
case("InsectSprays_quasi_mu_sqrt", "InsectSprays", "count ~ spray", "quasi", "sqrt", variance = "mu")
case("policies_quasi_mu_offset", "policies", "cost ~ area + age", "quasi", "log", variance = "mu", offset = "log(exposure)")
case("policies_quasi_mu_frequency", "policies", "cost ~ area + age", "quasi", "log", variance = "mu", weights = "copies", kind = "frequency")
case("airquality_quasi_mu_squared_log", "airquality", "Ozone ~ Solar_R + Wind + Temp", "quasi", "log", variance = "mu^2")
case("clotting_quasi_mu_squared_inverse", "clotting", "lot1 ~ log(u)", "quasi", "inverse", variance = "mu^2")
case("mtcars_quasi_mu_squared_weights", "mtcars", "mpg ~ wt + C(cyl)", "quasi", "log", variance = "mu^2", weights = "qsec")
case("cars_quasi_mu_squared_identity", "cars", "dist ~ speed", "quasi", "identity", variance = "mu^2")
case("veteran_quasi_mu_cubed_log", "veteran", "time ~ karno + celltype", "quasi", "log", variance = "mu^3")
case("chickwts_quasi_mu_cubed_inverse_square", "chickwts", "weight ~ feed", "quasi", "inverse_square", variance = "mu^3")
case("hills_quasi_mu_cubed_offset", "hills", "time ~ climb", "quasi", "log", variance = "mu^3", offset = "log(dist)")
case("downs_quasi_proportion_logit", "downs", "I(r/m) ~ age + I(age**2)", "quasi", "logit", variance = "mu(1-mu)", weights = "m")
case("snails_quasi_proportion_probit", "snails", "Share ~ Species + Exposure + Temp", "quasi", "probit", variance = "mu(1-mu)", weights = "N")
case("infert_quasi_proportion_cloglog", "infert", "case ~ spontaneous + induced", "quasi", "cloglog", variance = "mu(1-mu)", weights = "parity", kind = "frequency")
case("birthwt_quasi_proportion_cauchit", "birthwt", "low ~ lwt + smoke", "quasi", "cauchit", variance = "mu(1-mu)")

# quasi-Poisson, quasi-binomial
case("quine_quasipoisson_log", "quine", "Days ~ Eth + Sex + Age*Lrn", "quasipoisson", "log")
case("Insurance_quasipoisson_offset", "Insurance", "Claims ~ C(District) + Group + Age", "quasipoisson", "log", offset = "log(Holders)")
case("epil_quasipoisson_frequency", "epil", "y ~ lbase*trt + lage", "quasipoisson", "log", weights = "period", kind = "frequency")
case("policies_quasipoisson_weights", "policies", "cost ~ area + age", "quasipoisson", "log", weights = "exposure")
case("warpbreaks_quasipoisson_sqrt", "warpbreaks", "breaks ~ wool*tension", "quasipoisson", "sqrt")
case("quakes_quasipoisson_identity", "quakes", "stations ~ mag", "quasipoisson", "identity")
case("esoph_quasibinomial_logit", "esoph", "cbind(ncases, ncontrols) ~ agegp + alcgp + tobgp", "quasibinomial", "logit")
case("snails_quasibinomial_trials", "snails", "Share ~ Species + Exposure + Temp", "quasibinomial", "logit", weights = "N", kind = "trials")
case("budworm_quasibinomial_probit", "budworm", "cbind(dead, alive) ~ sex + ldose", "quasibinomial", "probit")
case("beetles_quasibinomial_cloglog", "beetles", "cbind(killed, survived) ~ dose", "quasibinomial", "cloglog")
case("infert_quasibinomial_frequency", "infert", "case ~ spontaneous + induced", "quasibinomial", "logit", weights = "parity", kind = "frequency")
case("UCBAdmissions_quasibinomial_log", "UCBAdmissions", "cbind(Admitted, Rejected) ~ Gender + Dept", "quasibinomial", "log")

# binomial: the other links, and frequencies
case("budworm_cauchit", "budworm", "cbind(dead, alive) ~ sex + ldose", "binomial", "cauchit")
case("menarche_cauchit", "menarche", "cbind(Menarche, Not) ~ Age", "binomial", "cauchit")
case("birthwt_cauchit", "birthwt", "low ~ lwt + C(race) + smoke", "binomial", "cauchit")
case("infert_cauchit_frequency", "infert", "case ~ spontaneous + induced", "binomial", "cauchit", weights = "parity", kind = "frequency")
case("snails_cauchit_trials", "snails", "Share ~ Species + Exposure", "binomial", "cauchit", weights = "N", kind = "trials")
case("infert_cloglog_frequency", "infert", "case ~ spontaneous + induced + education", "binomial", "cloglog", weights = "parity", kind = "frequency")
case("kyphosis_cloglog", "kyphosis", "present ~ Age + Number + Start", "binomial", "cloglog")
case("ovarian_cloglog_offset", "ovarian", "fustat ~ age", "binomial", "cloglog", offset = "log(futime/365.25)")
case("beetles_loglog", "beetles", "cbind(killed, survived) ~ dose", "binomial", "loglog")
case("birthwt_loglog", "birthwt", "low ~ lwt + C(race) + smoke + ht", "binomial", "loglog")
case("menarche_loglog", "menarche", "cbind(Menarche, Not) ~ Age", "binomial", "loglog")
case("esoph_loglog", "esoph", "cbind(ncases, ncontrols) ~ agegp + alcgp", "binomial", "loglog")
case("snails_loglog_trials", "snails", "Share ~ Species + Exposure + Temp", "binomial", "loglog", weights = "N", kind = "trials")
case("birthwt_log_complement", "birthwt", "low ~ smoke + ui", "binomial", "log_complement")
case("UCBAdmissions_log_complement", "UCBAdmissions", "cbind(Admitted, Rejected) ~ Gender + Dept", "binomial", "log_complement")
case("Titanic_log_complement", "Titanic", "cbind(Yes, No) ~ Class + Sex", "binomial", "log_complement")
case("infert_log_complement", "infert", "case ~ induced", "binomial", "log_complement")
case("melanoma_log_complement", "melanoma", "died ~ C(ulcer) + C(sex)", "binomial", "log_complement")

# power links
case("trees_gamma_cube_root", "trees", "Volume ~ Girth + Height", "gamma", "power", exponent = 1 / 3)
case("mtcars_gamma_inverse_cube_root", "mtcars", "mpg ~ wt + hp", "gamma", "power", exponent = -1 / 3)
case("warpbreaks_gamma_inverse_cube_root", "warpbreaks", "breaks ~ wool + tension", "gamma", "power", exponent = -1 / 3)
case("faithful_gamma_square", "faithful", "waiting ~ eruptions", "gamma", "power", exponent = 2)
case("trees_gaussian_cube_root", "trees", "Volume ~ Girth + Height", "gaussian", "power", exponent = 1 / 3)
case("stackloss_gaussian_cube_root", "stackloss", "stack_loss ~ Air_Flow + Water_Temp", "gaussian", "power", exponent = 1 / 3)
case("mtcars_gaussian_inverse_cube_root", "mtcars", "mpg ~ wt + hp", "gaussian", "power", exponent = -1 / 3)
case("mtcars_gaussian_cube_root_weights", "mtcars", "mpg ~ wt", "gaussian", "power", exponent = 1 / 3, weights = "qsec")
case("warpbreaks_poisson_cube_root", "warpbreaks", "breaks ~ wool*tension", "poisson", "power", exponent = 1 / 3)
case("quakes_poisson_cube_root", "quakes", "stations ~ mag", "poisson", "power", exponent = 1 / 3)
case("warpbreaks_poisson_inverse_cube_root", "warpbreaks", "breaks ~ wool + tension", "poisson", "power", exponent = -1 / 3)
case("quakes_poisson_inverse_cube_root", "quakes", "stations ~ mag", "poisson", "power", exponent = -1 / 3)
case("epil_poisson_cube_root_frequency", "epil", "y ~ base + trt", "poisson", "power", exponent = 1 / 3, weights = "period", kind = "frequency")

# Tweedie
case("policies_tweedie_1_3", "policies", "cost ~ area + age", "tweedie", "log", power = 1.3)
case("policies_tweedie_1_5", "policies", "cost ~ area + age", "tweedie", "log", power = 1.5)
case("policies_tweedie_1_7", "policies", "cost ~ area + age", "tweedie", "log", power = 1.7)
case("policies_tweedie_weights", "policies", "I(cost/exposure) ~ area + age", "tweedie", "log", power = 1.5, weights = "exposure")
case("policies_tweedie_offset", "policies", "cost ~ area + age", "tweedie", "log", power = 1.6, offset = "log(exposure)")
case("policies_tweedie_frequency", "policies", "cost ~ area + age", "tweedie", "log", power = 1.5, weights = "copies", kind = "frequency")
case("policies_tweedie_identity", "policies", "cost ~ area", "tweedie", "identity", power = 1.5)
case("policies_tweedie_canonical", "policies", "cost ~ area", "tweedie", "power", power = 1.5, exponent = -0.5)
case("epil_tweedie_1_3", "epil", "y ~ lbase*trt + lage", "tweedie", "log", power = 1.3)
case("quine_tweedie_1_7", "quine", "Days ~ Eth + Sex + Lrn", "tweedie", "log", power = 1.7)
case("InsectSprays_tweedie_sqrt", "InsectSprays", "count ~ spray", "tweedie", "sqrt", power = 1.5)
case("discoveries_tweedie_cube_root", "discoveries", "count ~ I(year - 1900)", "tweedie", "power", power = 1.3, exponent = 1 / 3)
case("veteran_tweedie_2_5", "veteran", "time ~ karno + celltype", "tweedie", "log", power = 2.5)
case("leuk_tweedie_2_5", "leuk", "time ~ ag + log(wbc)", "tweedie", "log", power = 2.5)
case("trees_tweedie_2_5_identity", "trees", "Volume ~ Girth", "tweedie", "identity", power = 2.5)
case("mtcars_tweedie_2_5_canonical", "mtcars", "mpg ~ wt + hp", "tweedie", "power", power = 2.5, exponent = -1.5)
case("trees_tweedie_3_5", "trees", "Volume ~ log(Girth) + log(Height)", "tweedie", "log", power = 3.5)
case("mtcars_tweedie_3_5_inverse", "mtcars", "mpg ~ wt + hp", "tweedie", "inverse", power = 3.5)
case("mtcars_tweedie_3_5_weights", "mtcars", "mpg ~ wt + C(cyl)", "tweedie", "log", power = 3.5, weights = "qsec")
case("chickwts_tweedie_3_5", "chickwts", "weight ~ feed", "tweedie", "log", power = 3.5)
case("mtcars_tweedie_0", "mtcars", "mpg ~ wt + hp", "tweedie", "identity", power = 0)
case("trees_tweedie_0_log", "trees", "Volume ~ log(Girth) + log(Height)", "tweedie", "log", power = 0)
case("cars_tweedie_0", "cars", "dist ~ speed", "tweedie", "identity", power = 0)
case("warpbreaks_quasipoisson_crossed", "warpbreaks", "breaks ~ wool*tension", "quasipoisson", "log")
case("quine_quasipoisson_main", "quine", "Days ~ Eth + Sex + Lrn", "quasipoisson", "log")
case("airquality_tweedie_2", "airquality", "Ozone ~ Wind + Temp", "tweedie", "log", power = 2)
case("veteran_tweedie_3", "veteran", "time ~ karno", "tweedie", "log", power = 3)

# ------------------------------------------- negative binomial, theta estimated

# The model frame of a case, the rows written out.
frame_of <- function(data, formula, weights, offset) {
  frame <- stored(data)
  if (!is.null(weights)) frame <- written_out(frame, weights)
  frame$.offset <- if (is.null(offset)) 0 else eval(parse(text = offset), frame)
  model <- as.formula(as_r(formula), env = globalenv())
  used <- intersect(c(all.vars(model), ".offset"), names(frame))
  frame <- frame[complete.cases(frame[used]), , drop = FALSE]
  mf <- model.frame(model, frame)
  list(model = model, frame = frame, X = model.matrix(model, mf), y = model.response(mf), offset = frame$.offset)
}

# QR of the weighted columns: errors at dispersion 1 and leverages.
errors_of <- function(X, root) {
  q <- qr(X * root, LAPACK = FALSE, tol = 1e-14)
  list(error = sqrt(rowSums(backsolve(qr.R(q), diag(ncol(X)))^2)), leverage = rowSums(qr.Q(q)^2))
}

# What every case says first.
heading <- function(kind, name, data, formula, family, link, weights, offset)
  list(name = name, data = paste0(data, ".csv"), formula = formula, r_formula = as_r(formula), family = family,
       link = link, kind = kind, family_arguments = list(), link_arguments = list(),
       weights = if (is.null(weights)) NULL else list(type = "frequency", column = weights), offset = offset)

keep_case <- function(fields) {
  stopifnot(!fields$name %in% names(CASES))
  CASES[[fields$name]] <<- fields
}

near <- function(a, b, tol) all(abs(a - b) <= tol * (1 + abs(b)))

# glm.nb(), then coefficients given theta and theta given coefficients until the
# scores of both are at rounding level; theta.ml() has score and information.
# (Its alternation may stop at the limit, where the last digits of theta swing.)
theta_case <- function(name, data, formula, link = "log", weights = NULL, offset = NULL) {
  m <- frame_of(data, formula, weights, offset)
  fit <- eval(bquote(glm.nb(.(update(m$model, . ~ . + offset(.offset))), data = m$frame, link = .(as.name(link)),
                            control = glm.control(epsilon = 1e-14, maxit = MAXIT))))
  X <- m$X
  y <- m$y
  w <- rep(1, length(y))
  theta <- fit$theta
  beta <- coef(fit)
  stopifnot(identical(names(beta), colnames(X)))
  for (i in 1:100) {
    fam <- eval(bquote(negative.binomial(theta, .(as.name(link)))))
    best <- polish(beta, X, y, w, m$offset, fam, TRUE)
    beta <- best$beta
    mu <- best$mu
    score <- sum(digamma(theta + y) - digamma(theta) + log(theta) + 1 - log(theta + mu) - (y + theta) / (mu + theta))
    information <- sum(-trigamma(theta + y) + trigamma(theta) - 1 / theta + 2 / (mu + theta) - (y + theta) / (mu + theta)^2)
    if (max(abs(score) / sqrt(information), best$score) < 1e-12) break
    theta <- theta + score / information
  }
  scores <- max(abs(score) / sqrt(information), best$score)
  stopifnot(scores < SCORE_LIMIT)
  null <- glm.fit(X[, 1, drop = FALSE], y, offset = m$offset, family = fam,
                  control = glm.control(epsilon = EPSILON, maxit = MAXIT))
  stopifnot(colnames(X)[1] == "(Intercept)")
  error <- errors_of(X, best$root)$error
  likelihood <- sum(dnbinom(y, size = theta, mu = mu, log = TRUE))
  # the errors of theta that glm.nb() gives are one step behind
  stopifnot(near(beta, coef(fit), 1e-6), near(error, summary(fit)$coefficients[, 2], 1e-6), near(theta, fit$theta, 1e-6),
            near(1 / sqrt(information), fit$SE.theta, 1e-4), near(2 * likelihood, fit$twologlik, 1e-9))
  keep_case(c(heading("glm.nb", name, data, formula, "negative_binomial", link, weights, offset), list(
    names = array_json(colnames(X)), coefficients = array_json(beta), standard_errors = array_json(error),
    theta = theta, theta_error = 1 / sqrt(information),
    deviance = sum(fam$dev.resids(y, mu, w)), null_deviance = null$deviance,
    log_likelihood = likelihood, aic = -2 * likelihood + 2 * (ncol(X) + 1), dispersion = 1,
    pearson_chi2 = best$pearson, df_residual = best$df, df_null = length(y) - 1, nobs = length(y), score = scores)))
}

theta_case("quine_theta", "quine", "Days ~ Eth + Sex + Age + Lrn")
theta_case("quine_theta_crossed", "quine", "Days ~ Eth*Sex + Lrn")
theta_case("quine_theta_intercept_only", "quine", "Days ~ 1")
theta_case("quine_theta_sqrt", "quine", "Days ~ Eth + Sex + Lrn", link = "sqrt")
theta_case("epil_theta", "epil", "y ~ lbase*trt + lage + V4")
theta_case("epil_theta_offset", "epil", "y ~ trt + C(period)", offset = "log(base/4)")
theta_case("epil_theta_frequency", "epil", "y ~ lbase*trt + lage", weights = "period")
theta_case("warpbreaks_theta", "warpbreaks", "breaks ~ wool*tension")
theta_case("warpbreaks_theta_identity", "warpbreaks", "breaks ~ wool + tension", link = "identity")
theta_case("InsectSprays_theta", "InsectSprays", "count ~ spray")
theta_case("quakes_theta", "quakes", "stations ~ mag")
theta_case("discoveries_theta", "discoveries", "count ~ I(year - 1900)")
theta_case("cars_theta", "cars", "dist ~ speed")
theta_case("airquality_theta_frequency", "airquality", "Ozone ~ Wind + Temp", weights = "Month")
theta_case("housing_theta", "housing", "Freq ~ Infl + Type + Cont + Sat")


# --------------------------------------------------- gamma, shape by likelihood

# gamma.shape(), then Newton steps with its own score and information.  Weights A
# are variance weights: row i has shape A_i alpha.
shape_case <- function(name, data, formula, link = "log", weights = NULL, kind = "variance", offset = NULL) {
  frequencies <- if (kind == "frequency") weights
  m <- frame_of(data, formula, frequencies, offset)
  y <- m$y
  X <- m$X
  A <- if (!is.null(weights) && kind == "variance") m$frame[[weights]] else rep(1, length(y))
  m$frame$.A <- A
  fam <- Gamma(make.link(link))
  fit <- glm(m$model, family = fam, data = m$frame, weights = .A, offset = .offset,
             control = glm.control(epsilon = EPSILON, maxit = MAXIT))
  best <- polish(coef(fit), X, y, A, m$offset, fam, FALSE)
  mu <- best$mu
  alpha <- gamma.shape(fit, it.lim = 100, eps.max = 1e-10)$alpha
  for (i in 1:20) {
    score <- sum(A * (-y / mu - log(mu) + log(A) + 1 + log(y) + log(alpha) - digamma(A * alpha)))
    information <- sum(A * (A * trigamma(A * alpha) - 1 / alpha))
    if (abs(score) / sqrt(information) < 1e-12) break
    alpha <- alpha + score / information
  }
  scores <- max(abs(score) / sqrt(information), best$score)
  plain <- gamma.shape(fit, it.lim = 100, eps.max = 1e-10)
  stopifnot(scores < SCORE_LIMIT, near(alpha, plain$alpha, 1e-7), near(1 / sqrt(information), plain$SE, 1e-6),
            near(1 / alpha, gamma.dispersion(fit, it.lim = 100, eps.max = 1e-10), 1e-7))
  fields <- heading("gamma.shape", name, data, formula, "gamma", link, weights, offset)
  if (!is.null(weights)) fields$weights$type <- kind
  keep_case(c(fields, list(
    names = array_json(colnames(X)), coefficients = array_json(best$beta),
    standard_errors = array_json(errors_of(X, best$root)$error / sqrt(alpha)),
    shape = alpha, shape_error = 1 / sqrt(information), dispersion = 1 / alpha,
    deviance = sum(fam$dev.resids(y, mu, A)), pearson_chi2 = best$pearson, df_residual = best$df,
    nobs = length(y), log_likelihood_at_shape = sum(dgamma(y, A * alpha, scale = mu / (A * alpha), log = TRUE)),
    score = scores)))
}

shape_case("clotting_shape", "clotting", "lot1 ~ log(u)", link = "inverse")
shape_case("trees_shape", "trees", "Volume ~ log(Girth) + log(Height)")
shape_case("veteran_shape", "veteran", "time ~ celltype + karno")
shape_case("leuk_shape", "leuk", "time ~ ag*log(wbc)")
shape_case("lung_shape_frequency", "lung", "time ~ age + ph_karno", weights = "sex", kind = "frequency")
shape_case("mtcars_shape_weights", "mtcars", "mpg ~ wt + C(cyl)", weights = "carb")
shape_case("hills_shape_weights", "hills", "time ~ log(dist) + climb", weights = "precision")
shape_case("cars_shape_identity", "cars", "dist ~ speed", link = "identity")
shape_case("veteran_shape_intercept_only", "veteran", "time ~ 1")


# ------------------------------------------------------- reduced bias (Firth)

# brglm2's mean bias reduction; for canonical links also the maximum of the
# likelihood times the root of det(information) (Firth 1993), which is checked.
# Then scoring steps on the adjusted score of Kosmidis and Firth (2009),
#   X'[W z + h mu'' / (2 mu')],  h the leverages.
# separated: whether the maximum likelihood estimate is infinite.
firth_case <- function(name, data, formula, family, link, weights = NULL, offset = NULL, separated = TRUE) {
  m <- frame_of(data, formula, weights, offset)
  X <- m$X
  fam <- family_of(family, link_of(link), list())
  brglm <- function(type)
    glm(m$model, family = fam, data = m$frame, offset = .offset, method = "brglmFit", type = type,
        control = brglmControl(epsilon = 1e-12, maxit = 1000))
  fit <- brglm("AS_mean")
  canonical <- link == c(binomial = "logit", poisson = "log")[[family]]
  if (canonical) stopifnot(near(coef(fit), coef(brglm("MPL_Jeffreys")), 1e-7))
  y <- fit$y
  w <- fit$prior.weights
  bend <- switch(link,                       # mu'' / mu'
    logit = function(eta, mu) 1 - 2 * mu, log = function(eta, mu) rep(1, length(mu)),
    probit = function(eta, mu) -eta, cloglog = function(eta, mu) 1 - exp(eta))
  beta <- coef(fit)
  best <- NULL
  for (i in 1:500) {
    s <- state(beta, X, y, w, m$offset, fam, TRUE)
    e <- errors_of(X, s$root)
    z <- s$z + e$leverage * bend(drop(X %*% beta) + m$offset, s$mu) / 2 / s$root
    s$score <- max(abs(crossprod(X * s$root, z)) / sqrt(colSums((X * s$root)^2)))
    if (is.null(best) || s$score < best$score) { best <- s; best$error <- e$error } else if (i > 50) break
    beta <- beta + qr.coef(qr(X * s$root), z)
  }
  likelihood <- -fam$aic(y, if (family == "binomial") w else 1, best$mu, w) / 2
  stopifnot(best$score < SCORE_LIMIT, near(best$beta, coef(fit), 1e-7),
            near(best$error, summary(fit)$coefficients[, 2], 1e-7),
            near(likelihood, as.numeric(logLik(fit)), 1e-7))
  keep_case(c(heading("firth", name, data, formula, family, link, weights, offset), list(
    separated = if (separated) 1 else 0,
    names = array_json(colnames(X)), coefficients = array_json(best$beta), standard_errors = array_json(best$error),
    deviance = sum(fam$dev.resids(y, best$mu, w)), log_likelihood = likelihood, dispersion = 1,
    pearson_chi2 = best$pearson, df_residual = best$df, nobs = length(y), score = best$score)))
}

firth_case("endometrial_firth", "endometrial", "HG ~ NV + PI + EH", "binomial", "logit")
firth_case("endometrial_firth_probit", "endometrial", "HG ~ NV + PI + EH", "binomial", "probit")
firth_case("endometrial_firth_cloglog", "endometrial", "HG ~ NV + PI + EH", "binomial", "cloglog")
firth_case("all_or_nothing_firth", "all_or_nothing", "dead ~ dose", "binomial", "logit")
firth_case("one_arm_cured_firth", "one_arm_cured", "cbind(cured, ill) ~ arm + stage", "binomial", "logit")
firth_case("one_arm_cured_firth_probit", "one_arm_cured", "cbind(cured, ill) ~ arm", "binomial", "probit")
firth_case("region_without_claims_firth", "region_without_claims", "claims ~ region + age", "poisson", "log")
firth_case("region_without_claims_firth_offset", "region_without_claims", "claims ~ region + age", "poisson", "log", offset = "log(years)")
firth_case("lizards_firth", "lizards", "cbind(grahami, opalinus) ~ height + diameter + light + time", "binomial", "logit", separated = FALSE)
firth_case("birthwt_firth", "birthwt", "low ~ lwt + C(race) + smoke", "binomial", "logit", separated = FALSE)
firth_case("infert_firth_frequency", "infert", "case ~ spontaneous + induced", "binomial", "logit", weights = "parity", separated = FALSE)
firth_case("InsectSprays_firth", "InsectSprays", "count ~ spray", "poisson", "log", separated = FALSE)


# -------------------------------------------------------------------- output

write_cases("families.json", c("MASS", "statmod", "brglm2"),
            paste0(SETTINGS, "; glm.nb: epsilon = 1e-14; brglmControl(epsilon = 1e-12)"), CASES)

print(table(vapply(CASES, function(x) paste(x$kind, x$family), "")))
cat(length(CASES), "cases,", length(unique(vapply(CASES, `[[`, "", "data"))), "data sets,",
    "largest score", max(vapply(CASES, `[[`, 0, "score")), "\n")

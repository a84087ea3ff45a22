# Reference values for generalized linear models, from R's own glm().
#
#   Rscript tests/references/glm.R
#
# writes, next to this file, data/NAME.csv for every data set and glm.json with
# one record per case.  Only base R and the recommended packages are needed.
# A case that is separated, or whose score stays above SCORE_LIMIT, is dropped
# with a message.
#
# Every case is fitted by glm() with the settings below, from up to three
# starting points of which the fit with the least deviance is taken, and then
# polished by QR-based Fisher scoring until the score no longer gets smaller.
# All reported numbers are evaluated at the polished coefficients.

suppressPackageStartupMessages({
  library(MASS); library(boot); library(survival); library(nlme)
  library(rpart); library(lattice)
})
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
here <- if (length(script)) dirname(script[1]) else "."
source(file.path(here, "common.R"))
dir.create(file.path(here, "data"), showWarnings = FALSE)


# ---------------------------------------------------------------------- data

wide <- function(table, column) {          # counts of one margin side by side
  frame <- as.data.frame(table)
  margin <- as.character(frame[[column]])
  rest <- frame[margin == margin[1], setdiff(names(frame), c(column, "Freq")), drop = FALSE]
  for (value in unique(margin)) rest[[value]] <- frame$Freq[margin == value]
  rest
}

# datasets
add("warpbreaks", warpbreaks)
add("esoph", esoph)
add("infert", infert[c("education", "age", "parity", "induced", "case", "spontaneous")])
add("mtcars", mtcars)
add("ToothGrowth", ToothGrowth)
add("InsectSprays", InsectSprays)
add("airquality", airquality)
add("attitude", attitude)
add("chickwts", chickwts)
add("quakes", quakes)
add("swiss", swiss)
add("stackloss", stackloss)
add("trees", trees)
add("cars", transform(cars, constant = 2))
add("iris", iris)
add("PlantGrowth", PlantGrowth)
add("npk", npk)
add("Puromycin", Puromycin)
add("CO2", CO2)
add("Orange", Orange)
add("women", women)
add("sleep", sleep)
add("faithful", faithful)
add("discoveries", data.frame(count = as.numeric(discoveries), year = 1860:1959))
add("UCBAdmissions", wide(UCBAdmissions, "Admit"))
add("HairEyeColor", as.data.frame(HairEyeColor))
add("Titanic", subset(wide(Titanic, "Survived"), Yes + No > 0))
add("LifeCycleSavings", LifeCycleSavings)
add("longley", longley)                    # used by ill_conditioned.py
# printed in the examples of help(glm): Dobson (1990), McCullagh and Nelder (1989)
add("dobson", data.frame(counts = c(18, 17, 15, 20, 10, 20, 25, 13, 12),
                         outcome = rep(c("o1", "o2", "o3"), 3),
                         treatment = rep(c("t1", "t2", "t3"), each = 3)))
add("clotting", data.frame(u = c(5, 10, 15, 20, 30, 40, 60, 80, 100),
                           lot1 = c(118, 58, 42, 35, 27, 25, 21, 19, 18),
                           lot2 = c(69, 35, 26, 21, 18, 16, 13, 12, 12)))
# MASS, and the budworm data printed in Venables and Ripley (2002), section 7.2
add("quine", quine)
add("Insurance", Insurance)
add("birthwt", birthwt)
add("Boston", Boston)
add("menarche", transform(menarche, Not = Total - Menarche, Proportion = Menarche / Total))
add("bacteria", transform(bacteria, present = as.numeric(y == "y"))[
  c("present", "ap", "hilo", "week", "trt")])
add("Pima_tr", transform(Pima.tr, diabetic = as.numeric(type == "Yes")))
add("Pima_tr2", transform(Pima.tr2, diabetic = as.numeric(type == "Yes")))
add("anorexia", anorexia)
add("housing", housing)
add("shuttle", transform(shuttle, auto = as.numeric(use == "auto")))
add("eagles", transform(eagles, failed = n - y))
add("budworm", data.frame(ldose = rep(0:5, 2), sex = rep(c("M", "F"), each = 6),
                          dead = c(1, 4, 9, 13, 18, 20, 0, 2, 6, 10, 12, 16),
                          alive = 20 - c(1, 4, 9, 13, 18, 20, 0, 2, 6, 10, 12, 16)))
add("ships", subset(ships, service > 0))
add("epil", epil)
add("snails", transform(snails, Alive = N - Deaths, Share = Deaths / N))
add("cpus", cpus[-1])
add("hills", transform(hills, precision = 1 / dist^2))
add("mammals", mammals)
add("leuk", leuk)
add("UScrime", UScrime)
add("whiteside", whiteside)
add("cement", cement)
# boot
add("nodal", nodal[-1])
add("melanoma", transform(boot::melanoma, died = as.numeric(status == 1)))
add("nuclear", nuclear)
add("downs", transform(downs.bc, other = m - r))
# survival
add("lung", transform(lung, dead = status - 1))
add("ovarian", ovarian)
add("veteran", veteran)
# nlme, rpart, lattice
add("Orthodont", as.data.frame(Orthodont)[c("distance", "age", "Sex")])
add("kyphosis", transform(kyphosis, present = as.numeric(Kyphosis == "present")))
add("ethanol", setNames(ethanol, c("NOx", "compression", "E")))
# Bliss (1935), as printed in Dobson (1990), table 8.1
add("beetles", data.frame(dose = c(1.6907, 1.7242, 1.7552, 1.7842, 1.8113, 1.8369, 1.8610, 1.8839),
                          killed = c(6, 13, 18, 28, 52, 53, 61, 60),
                          survived = c(53, 47, 44, 28, 11, 6, 1, 0)))


# --------------------------------------------------------------------- cases

case <- function(name, data, formula, family, link, weights = NULL, offset = NULL)
  reference(name, data, formula, family, link,
            fam = switch(family, gaussian = gaussian(link), binomial = binomial(link),
                         poisson = poisson(link), gamma = Gamma(link)),
            known = family %in% c("binomial", "poisson"), bounded = family == "binomial",
            weights = weights, kind = if (family == "binomial") "trials" else "variance", offset = offset,
            likelihood = if (family == "gamma" && !is.null(weights)) NA)

# gaussian, identity
case("mtcars_gaussian", "mtcars", "mpg ~ wt + hp + qsec", "gaussian", "identity")
case("mtcars_numeric_interaction", "mtcars", "mpg ~ wt*hp", "gaussian", "identity")
case("mtcars_numeric_factor", "mtcars", "mpg ~ wt + C(cyl) + wt:C(cyl)", "gaussian", "identity")
case("mtcars_variance_weights", "mtcars", "mpg ~ wt + C(gear)", "gaussian", "identity", weights = "qsec")
case("ToothGrowth_gaussian", "ToothGrowth", "len ~ supp*C(dose)", "gaussian", "identity")
case("airquality_gaussian", "airquality", "Ozone ~ Solar_R + Wind + Temp", "gaussian", "identity")
case("airquality_log_response", "airquality", "log(Ozone) ~ Solar_R + log(Wind) + Temp + C(Month)", "gaussian", "identity")
case("attitude_gaussian", "attitude", "rating ~ complaints + privileges + learning + raises + critical + advance", "gaussian", "identity")
case("chickwts_no_intercept", "chickwts", "weight ~ feed - 1", "gaussian", "identity")
case("quakes_gaussian", "quakes", "mag ~ stations + sqrt(depth) + lat + long", "gaussian", "identity")
case("swiss_gaussian", "swiss", "Fertility ~ Agriculture + Examination + Education + Catholic + Infant_Mortality", "gaussian", "identity")
case("stackloss_gaussian", "stackloss", "stack_loss ~ Air_Flow + Water_Temp + Acid_Conc_", "gaussian", "identity")
case("trees_log_log", "trees", "log(Volume) ~ log(Girth) + log(Height)", "gaussian", "identity")
case("trees_offset", "trees", "log(Volume) ~ log(Girth)", "gaussian", "identity", offset = "log(Height)")
case("cars_gaussian", "cars", "dist ~ speed", "gaussian", "identity")
case("cars_no_intercept", "cars", "dist ~ speed + I(speed**2) - 1", "gaussian", "identity")
case("cars_aliased", "cars", "dist ~ speed + I(2*speed)", "gaussian", "identity")
case("cars_constant_column", "cars", "dist ~ constant + speed", "gaussian", "identity")
case("cars_constant_for_intercept", "cars", "dist ~ constant + speed - 1", "gaussian", "identity")
case("iris_nested", "iris", "Sepal_Length ~ Species/Petal_Length", "gaussian", "identity")
case("iris_nested_no_intercept", "iris", "Sepal_Length ~ Species/Petal_Width - 1", "gaussian", "identity")
case("iris_crossed", "iris", "Petal_Width ~ Species*Sepal_Width + Petal_Length", "gaussian", "identity")
case("PlantGrowth_intercept_only", "PlantGrowth", "weight ~ 1", "gaussian", "identity")
case("PlantGrowth_group", "PlantGrowth", "weight ~ group", "gaussian", "identity")
case("npk_aliased", "npk", "yield ~ C(block) + C(N)*C(P)*C(K)", "gaussian", "identity")
case("npk_main_effects", "npk", "yield ~ C(block) + C(N) + C(K)", "gaussian", "identity")
case("CO2_gaussian", "CO2", "uptake ~ Type*Treatment + Type:log(conc)", "gaussian", "identity")
case("Orange_gaussian", "Orange", "circumference ~ C(Tree) + age + C(Tree):age", "gaussian", "identity")
case("women_quadratic", "women", "weight ~ height + I(height**2)", "gaussian", "identity")
case("sleep_gaussian", "sleep", "extra ~ C(group)", "gaussian", "identity")
case("LifeCycleSavings_gaussian", "LifeCycleSavings", "sr ~ pop15 + pop75 + log(dpi) + ddpi", "gaussian", "identity")
case("Boston_gaussian", "Boston", "medv ~ crim + zn + chas + nox + rm + dis + rad + tax + ptratio + black + lstat", "gaussian", "identity")
case("Boston_log_response", "Boston", "log(medv) ~ crim + I(nox**2) + I(rm**2) + log(dis) + log(rad) + ptratio + log(lstat)", "gaussian", "identity")
case("birthwt_gaussian", "birthwt", "bwt ~ age + lwt + C(race) + smoke + ht + ui", "gaussian", "identity")
case("anorexia_offset", "anorexia", "Postwt ~ Prewt + Treat", "gaussian", "identity", offset = "Prewt")
case("hills_variance_weights", "hills", "time ~ dist + climb", "gaussian", "identity", weights = "precision")
case("hills_weights_no_intercept", "hills", "time ~ dist + climb - 1", "gaussian", "identity", weights = "precision")
case("mammals_log_log", "mammals", "log(brain) ~ log(body)", "gaussian", "identity")
case("UScrime_gaussian", "UScrime", "log(y) ~ M + Ed + Po1 + M_F + U1 + U2 + Ineq + Prob", "gaussian", "identity")
case("whiteside_nested", "whiteside", "Gas ~ Insul/Temp - 1", "gaussian", "identity")
case("whiteside_quadratic", "whiteside", "Gas ~ Insul/(Temp + I(Temp**2))", "gaussian", "identity")
case("cement_gaussian", "cement", "y ~ x1 + x2 + x3 + x4", "gaussian", "identity")
case("nuclear_gaussian", "nuclear", "log(cost) ~ date + log(t1) + log(t2) + log(cap) + pr + ne + ct + bw + log(cum_n) + pt", "gaussian", "identity")
case("Orthodont_gaussian", "Orthodont", "distance ~ Sex*age", "gaussian", "identity")
case("ethanol_gaussian", "ethanol", "NOx ~ compression*E + I(E**2) + I(E**3)", "gaussian", "identity")
case("faithful_gaussian", "faithful", "eruptions ~ waiting", "gaussian", "identity")

# gaussian, log
case("trees_gaussian_log", "trees", "Volume ~ log(Girth) + log(Height)", "gaussian", "log")
case("mtcars_gaussian_log", "mtcars", "mpg ~ wt + hp", "gaussian", "log")
case("mtcars_gaussian_log_weights", "mtcars", "mpg ~ wt + C(cyl)", "gaussian", "log", weights = "qsec")
case("stackloss_gaussian_log", "stackloss", "stack_loss ~ Air_Flow + Water_Temp", "gaussian", "log")
case("cpus_gaussian_log", "cpus", "perf ~ log(mmax) + sqrt(cach) + log(syct)", "gaussian", "log")
case("airquality_gaussian_log", "airquality", "Ozone ~ Wind + Temp", "gaussian", "log")
case("airquality_gaussian_log_offset", "airquality", "Ozone ~ Wind + Temp", "gaussian", "log", offset = "log(Solar_R)")
case("Orange_gaussian_log", "Orange", "circumference ~ C(Tree) + log(age)", "gaussian", "log")
case("women_gaussian_log", "women", "weight ~ height", "gaussian", "log")
case("PlantGrowth_gaussian_log_intercept_only", "PlantGrowth", "weight ~ 1", "gaussian", "log")

# gaussian, inverse
case("Puromycin_gaussian_inverse", "Puromycin", "rate ~ state + I(1/conc)", "gaussian", "inverse")
case("Puromycin_gaussian_inverse_nested", "Puromycin", "rate ~ state/I(1/conc) - 1", "gaussian", "inverse")
case("mtcars_gaussian_inverse", "mtcars", "mpg ~ wt + hp", "gaussian", "inverse")
case("CO2_gaussian_inverse", "CO2", "uptake ~ Type*Treatment + I(1/conc)", "gaussian", "inverse")
case("clotting_gaussian_inverse", "clotting", "lot1 ~ log(u)", "gaussian", "inverse")
case("ToothGrowth_gaussian_inverse_weights", "ToothGrowth", "len ~ supp + I(1/dose)", "gaussian", "inverse", weights = "dose")

# binomial, logit
case("esoph_logit", "esoph", "cbind(ncases, ncontrols) ~ agegp + alcgp + tobgp", "binomial", "logit")
case("infert_logit", "infert", "case ~ spontaneous + induced", "binomial", "logit")
case("infert_logit_factors", "infert", "case ~ age + parity + education + C(spontaneous) + C(induced)", "binomial", "logit")
case("mtcars_logit", "mtcars", "vs ~ wt", "binomial", "logit")
case("UCBAdmissions_logit", "UCBAdmissions", "cbind(Admitted, Rejected) ~ Dept + Gender", "binomial", "logit")
case("Titanic_logit", "Titanic", "cbind(Yes, No) ~ Class + Sex + Age", "binomial", "logit")
case("Titanic_logit_interaction", "Titanic", "cbind(Yes, No) ~ Class*Sex + Age", "binomial", "logit")
case("birthwt_logit", "birthwt", "low ~ age + lwt + C(race) + smoke + ptl + ht + ui + ftv", "binomial", "logit")
case("birthwt_logit_interaction", "birthwt", "low ~ age + lwt + C(race)*C(smoke) + ht", "binomial", "logit")
case("menarche_logit", "menarche", "cbind(Menarche, Not) ~ Age", "binomial", "logit")
case("menarche_logit_trials", "menarche", "Proportion ~ Age", "binomial", "logit", weights = "Total")
case("bacteria_logit", "bacteria", "present ~ trt + week", "binomial", "logit")
case("bacteria_logit_crossed", "bacteria", "present ~ ap*hilo + sqrt(week)", "binomial", "logit")
case("Pima_logit", "Pima_tr", "diabetic ~ npreg + glu + bp + skin + bmi + ped + age", "binomial", "logit")
case("Pima_logit_missing", "Pima_tr2", "diabetic ~ npreg + glu + bp + skin + bmi + ped + age", "binomial", "logit")
case("Pima_logit_numeric_interaction", "Pima_tr", "diabetic ~ glu + age + glu:age", "binomial", "logit")
case("Pima_logit_aliased", "Pima_tr", "diabetic ~ glu + I(2*glu) + bmi", "binomial", "logit")
case("shuttle_logit", "shuttle", "auto ~ stability + error + sign + wind", "binomial", "logit")
case("eagles_logit", "eagles", "cbind(y, failed) ~ P + A + V", "binomial", "logit")
case("eagles_logit_crossed", "eagles", "cbind(y, failed) ~ P*A + V", "binomial", "logit")
case("budworm_logit", "budworm", "cbind(dead, alive) ~ sex*ldose", "binomial", "logit")
case("budworm_logit_no_intercept", "budworm", "cbind(dead, alive) ~ sex + ldose - 1", "binomial", "logit")
case("snails_logit", "snails", "cbind(Deaths, Alive) ~ Species + Exposure + Rel_Hum + Temp", "binomial", "logit")
case("snails_logit_trials", "snails", "Share ~ Species + Exposure + Temp", "binomial", "logit", weights = "N")
case("nodal_logit", "nodal", "r ~ aged + stage + grade + xray + acid", "binomial", "logit")
case("nodal_logit_intercept_only", "nodal", "r ~ 1", "binomial", "logit")
case("melanoma_logit", "melanoma", "died ~ C(sex) + age + log(thickness) + C(ulcer)", "binomial", "logit")
case("kyphosis_logit", "kyphosis", "present ~ Age + Number + Start", "binomial", "logit")
case("kyphosis_logit_quadratic", "kyphosis", "present ~ Age + I(Age**2) + Start", "binomial", "logit")
case("beetles_logit", "beetles", "cbind(killed, survived) ~ dose", "binomial", "logit")
case("lung_logit", "lung", "dead ~ age + C(sex) + ph_ecog + wt_loss", "binomial", "logit")
case("downs_logit", "downs", "cbind(r, other) ~ age + exp(age/10)", "binomial", "logit")

# binomial, probit
case("menarche_probit", "menarche", "cbind(Menarche, Not) ~ Age", "binomial", "probit")
case("budworm_probit", "budworm", "cbind(dead, alive) ~ sex + ldose", "binomial", "probit")
case("birthwt_probit", "birthwt", "low ~ age + lwt + C(race) + smoke + ht + ui", "binomial", "probit")
case("Pima_probit", "Pima_tr", "diabetic ~ npreg + glu + bmi + ped", "binomial", "probit")
case("infert_probit", "infert", "case ~ spontaneous + induced + education", "binomial", "probit")
case("kyphosis_probit", "kyphosis", "present ~ Age + Number + Start", "binomial", "probit")
case("esoph_probit", "esoph", "cbind(ncases, ncontrols) ~ agegp + alcgp + tobgp", "binomial", "probit")
case("beetles_probit", "beetles", "cbind(killed, survived) ~ dose", "binomial", "probit")
case("lung_probit", "lung", "dead ~ age + C(sex) + meal_cal", "binomial", "probit")

# binomial, complementary log-log
case("beetles_cloglog", "beetles", "cbind(killed, survived) ~ dose", "binomial", "cloglog")
case("esoph_cloglog", "esoph", "cbind(ncases, ncontrols) ~ agegp + alcgp + tobgp", "binomial", "cloglog")
case("birthwt_cloglog", "birthwt", "low ~ lwt + C(race) + smoke + ht", "binomial", "cloglog")
case("nodal_cloglog", "nodal", "r ~ stage + xray + acid", "binomial", "cloglog")
case("snails_cloglog", "snails", "cbind(Deaths, Alive) ~ Species + Exposure + Rel_Hum + Temp", "binomial", "cloglog")
case("ovarian_cloglog", "ovarian", "fustat ~ age + C(rx)", "binomial", "cloglog", offset = "log(futime/365.25)")
case("bacteria_cloglog", "bacteria", "present ~ trt + week", "binomial", "cloglog")

# binomial, log
case("birthwt_log", "birthwt", "low ~ C(race) + smoke", "binomial", "log")
case("birthwt_log_numeric", "birthwt", "low ~ smoke + ui + lwt", "binomial", "log")
case("infert_log", "infert", "case ~ spontaneous", "binomial", "log")
case("UCBAdmissions_log", "UCBAdmissions", "cbind(Admitted, Rejected) ~ Gender + Dept", "binomial", "log")
case("Titanic_log", "Titanic", "cbind(Yes, No) ~ Class + Sex", "binomial", "log")
case("downs_log", "downs", "cbind(r, other) ~ age + I(age**2)", "binomial", "log")
case("downs_log_trials", "downs", "I(r/m) ~ age", "binomial", "log", weights = "m")
case("melanoma_log", "melanoma", "died ~ C(ulcer) + C(sex)", "binomial", "log")
case("bacteria_log_intercept_only", "bacteria", "present ~ 1", "binomial", "log")

# poisson, log
case("warpbreaks_log", "warpbreaks", "breaks ~ wool*tension", "poisson", "log")
case("warpbreaks_log_main_effects", "warpbreaks", "breaks ~ wool + tension", "poisson", "log")
case("InsectSprays_log", "InsectSprays", "count ~ spray", "poisson", "log")
case("InsectSprays_log_no_intercept", "InsectSprays", "count ~ spray - 1", "poisson", "log")
case("quakes_log", "quakes", "stations ~ mag + log(depth)", "poisson", "log")
case("discoveries_intercept_only", "discoveries", "count ~ 1", "poisson", "log")
case("discoveries_log", "discoveries", "count ~ I(year - 1900) + I((year - 1900)**2)", "poisson", "log")
case("HairEyeColor_log", "HairEyeColor", "Freq ~ Hair*Eye + Sex", "poisson", "log")
case("dobson_log", "dobson", "counts ~ outcome + treatment", "poisson", "log")
case("quine_log", "quine", "Days ~ Eth + Sex + Age + Lrn", "poisson", "log")
case("quine_log_empty_cell", "quine", "Days ~ Eth + Sex + Age*Lrn", "poisson", "log")
case("Insurance_offset", "Insurance", "Claims ~ C(District) + Group + Age", "poisson", "log", offset = "log(Holders)")
case("Insurance_offset_intercept_only", "Insurance", "Claims ~ 1", "poisson", "log", offset = "log(Holders)")
case("housing_log", "housing", "Freq ~ Infl*Type*Cont + Sat", "poisson", "log")
case("housing_log_association", "housing", "Freq ~ Infl*Type*Cont + Sat + Infl:Sat + Type:Sat + Cont:Sat", "poisson", "log")
case("ships_offset", "ships", "incidents ~ type + C(year) + C(period)", "poisson", "log", offset = "log(service)")
case("epil_log", "epil", "y ~ lbase*trt + lage + V4", "poisson", "log")
case("epil_offset", "epil", "y ~ trt + C(period)", "poisson", "log", offset = "log(base/4)")
case("lung_offset", "lung", "dead ~ age + C(sex) + ph_karno", "poisson", "log", offset = "log(time)")
case("ovarian_offset", "ovarian", "fustat ~ age + C(rx) + C(ecog_ps)", "poisson", "log", offset = "log(futime)")
case("veteran_offset", "veteran", "status ~ celltype + karno + C(trt)", "poisson", "log", offset = "log(time)")
case("melanoma_offset", "melanoma", "died ~ C(sex) + log(thickness) + C(ulcer)", "poisson", "log", offset = "log(time/365.25)")

# poisson, identity
case("warpbreaks_identity", "warpbreaks", "breaks ~ wool + tension", "poisson", "identity")
case("InsectSprays_identity", "InsectSprays", "count ~ spray - 1", "poisson", "identity")
case("cars_poisson_identity", "cars", "dist ~ speed", "poisson", "identity")
case("quakes_identity", "quakes", "stations ~ mag", "poisson", "identity")
case("quine_identity", "quine", "Days ~ Eth + Sex + Lrn", "poisson", "identity")
case("dobson_identity", "dobson", "counts ~ outcome", "poisson", "identity")
case("discoveries_identity", "discoveries", "count ~ I(year - 1900)", "poisson", "identity")

# poisson, square root
case("warpbreaks_sqrt", "warpbreaks", "breaks ~ wool*tension", "poisson", "sqrt")
case("InsectSprays_sqrt", "InsectSprays", "count ~ spray", "poisson", "sqrt")
case("quine_sqrt", "quine", "Days ~ Eth*Sex + Age", "poisson", "sqrt")
case("quakes_sqrt", "quakes", "stations ~ mag + I(mag**2)", "poisson", "sqrt")
case("discoveries_sqrt", "discoveries", "count ~ I(year - 1900) + I((year - 1900)**2)", "poisson", "sqrt")
case("epil_sqrt", "epil", "y ~ base + trt + V4", "poisson", "sqrt")
case("cars_sqrt", "cars", "dist ~ speed", "poisson", "sqrt")
case("ships_sqrt_no_intercept", "ships", "incidents ~ sqrt(service):type - 1", "poisson", "sqrt")

# gamma, log
case("trees_gamma_log", "trees", "Volume ~ log(Girth) + log(Height)", "gamma", "log")
case("airquality_gamma_log", "airquality", "Ozone ~ Solar_R + Wind + Temp", "gamma", "log")
case("warpbreaks_gamma_log", "warpbreaks", "breaks ~ wool*tension", "gamma", "log")
case("ToothGrowth_gamma_log", "ToothGrowth", "len ~ supp*log(dose)", "gamma", "log")
case("cpus_gamma_log", "cpus", "perf ~ log(mmin) + log(mmax) + sqrt(cach) + chmin", "gamma", "log")
case("leuk_gamma_log", "leuk", "time ~ ag*log(wbc)", "gamma", "log")
case("Boston_gamma_log", "Boston", "medv ~ rm + log(lstat) + ptratio + C(chas)", "gamma", "log")
case("melanoma_gamma_log", "melanoma", "thickness ~ C(sex) + C(ulcer) + age", "gamma", "log")
case("hills_gamma_weights", "hills", "time ~ log(dist) + climb", "gamma", "log", weights = "precision")
case("mtcars_gamma_weights", "mtcars", "mpg ~ wt + C(cyl)", "gamma", "log", weights = "qsec")
case("lung_gamma_log", "lung", "time ~ age + C(sex) + ph_karno", "gamma", "log")
case("veteran_gamma_intercept_only", "veteran", "time ~ 1", "gamma", "log")
case("iris_gamma_log_nested", "iris", "Petal_Length ~ Species/Sepal_Length", "gamma", "log")
case("hills_gamma_offset", "hills", "time ~ climb", "gamma", "log", offset = "log(dist)")

# gamma, inverse
case("clotting_lot1_inverse", "clotting", "lot1 ~ log(u)", "gamma", "inverse")
case("clotting_lot2_inverse", "clotting", "lot2 ~ log(u)", "gamma", "inverse")
case("chickwts_gamma_inverse", "chickwts", "weight ~ feed", "gamma", "inverse")
case("chickwts_gamma_inverse_no_intercept", "chickwts", "weight ~ feed - 1", "gamma", "inverse")
case("mtcars_gamma_inverse", "mtcars", "mpg ~ wt + hp", "gamma", "inverse")
case("mtcars_gamma_inverse_weights", "mtcars", "mpg ~ disp + C(am)", "gamma", "inverse", weights = "qsec")
case("Puromycin_gamma_inverse", "Puromycin", "rate ~ state*I(1/conc)", "gamma", "inverse")
case("birthwt_gamma_inverse", "birthwt", "bwt ~ lwt + C(race) + smoke", "gamma", "inverse")
case("veteran_gamma_inverse", "veteran", "time ~ celltype + C(trt)", "gamma", "inverse")
case("faithful_gamma_inverse", "faithful", "waiting ~ eruptions + I(eruptions**2)", "gamma", "inverse")

# gamma, identity
case("cars_gamma_identity", "cars", "dist ~ speed", "gamma", "identity")
case("faithful_gamma_identity", "faithful", "waiting ~ eruptions", "gamma", "identity")
case("chickwts_gamma_identity", "chickwts", "weight ~ feed", "gamma", "identity")
case("mtcars_gamma_identity", "mtcars", "mpg ~ wt + hp", "gamma", "identity")
case("mtcars_gamma_identity_weights", "mtcars", "mpg ~ wt + C(vs)", "gamma", "identity", weights = "qsec")
case("hills_gamma_identity", "hills", "time ~ dist + climb - 1", "gamma", "identity")
case("Orthodont_gamma_identity", "Orthodont", "distance ~ Sex*age", "gamma", "identity")
case("swiss_gamma_identity", "swiss", "Fertility ~ Education + Catholic + Infant_Mortality", "gamma", "identity")
case("warpbreaks_gamma_identity", "warpbreaks", "breaks ~ wool + tension", "gamma", "identity")


# -------------------------------------------------------------------- output

write_cases("glm.json", c("MASS", "boot", "survival", "nlme", "rpart", "lattice"), SETTINGS, CASES)

pairs <- vapply(CASES, function(x) paste(x$family, x$link), "")
print(table(pairs))
cat(length(CASES), "cases,", length(unique(vapply(CASES, `[[`, "", "data"))), "data sets,",
    "largest score", max(vapply(CASES, `[[`, 0, "score")), "\n")

BEGIN TRANSACTION;
CREATE TABLE autotune_revision (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT autotune_revision_pkc PRIMARY KEY (version_num)
);
INSERT INTO "autotune_revision" VALUES('0002');
CREATE TABLE build (
	build_id TEXT NOT NULL, 
	backend TEXT NOT NULL, 
	version TEXT NOT NULL, 
	build_commit TEXT, 
	devices TEXT NOT NULL, 
	system_info TEXT NOT NULL, 
	facts_json TEXT NOT NULL, 
	CONSTRAINT pk_build PRIMARY KEY (build_id)
);
INSERT INTO "build" VALUES('3e3611b99734144d','llama-cpp-python','0.3.36','0c1e57098','CPU','AVX2 = 1','{"backend":"llama-cpp-python","commit":"0c1e57098","devices":["CPU"],"system_info":"AVX2 = 1","version":"0.3.36"}');
CREATE TABLE config (
	config_id TEXT NOT NULL, 
	n_ctx BIGINT NOT NULL, 
	n_batch BIGINT NOT NULL, 
	n_ubatch BIGINT NOT NULL, 
	n_threads BIGINT NOT NULL, 
	n_threads_batch BIGINT NOT NULL, 
	flash_attn TEXT NOT NULL, 
	type_k TEXT NOT NULL, 
	type_v TEXT NOT NULL, 
	use_mmap BOOLEAN NOT NULL, 
	use_mlock BOOLEAN NOT NULL, 
	n_gpu_layers BIGINT NOT NULL, 
	offload_kqv BOOLEAN NOT NULL, 
	op_offload BOOLEAN NOT NULL, 
	split_mode TEXT NOT NULL, 
	main_gpu BIGINT NOT NULL, 
	tensor_split TEXT, 
	swa_full BOOLEAN NOT NULL, 
	n_parallel BIGINT NOT NULL, 
	canonical_json TEXT NOT NULL, 
	CONSTRAINT pk_config PRIMARY KEY (config_id)
);
INSERT INTO "config" VALUES('4e889df1026d5397',4096,512,512,2,2,'off','f16','f16',1,0,0,1,1,'layer',0,NULL,1,1,'{"flash_attn":"off","main_gpu":0,"n_batch":512,"n_ctx":4096,"n_gpu_layers":0,"n_parallel":1,"n_threads":2,"n_threads_batch":2,"n_ubatch":512,"offload_kqv":true,"op_offload":true,"split_mode":"layer","swa_full":true,"tensor_split":null,"type_k":"f16","type_v":"f16","use_mlock":false,"use_mmap":true}');
INSERT INTO "config" VALUES('3a33c93817fdfc85',4096,512,512,2,2,'on','q8_0','q8_0',1,0,0,1,1,'layer',0,NULL,1,1,'{"flash_attn":"on","main_gpu":0,"n_batch":512,"n_ctx":4096,"n_gpu_layers":0,"n_parallel":1,"n_threads":2,"n_threads_batch":2,"n_ubatch":512,"offload_kqv":true,"op_offload":true,"split_mode":"layer","swa_full":true,"tensor_split":null,"type_k":"q8_0","type_v":"q8_0","use_mlock":false,"use_mmap":true}');
INSERT INTO "config" VALUES('2d56d2d81549263a',4096,512,512,2,2,'on','f16','f16',1,0,0,1,1,'layer',0,NULL,1,1,'{"flash_attn":"on","main_gpu":0,"n_batch":512,"n_ctx":4096,"n_gpu_layers":0,"n_parallel":1,"n_threads":2,"n_threads_batch":2,"n_ubatch":512,"offload_kqv":true,"op_offload":true,"split_mode":"layer","swa_full":true,"tensor_split":null,"type_k":"f16","type_v":"f16","use_mlock":false,"use_mmap":true}');
CREATE TABLE device_peak (
	run_id INTEGER NOT NULL, 
	position BIGINT NOT NULL, 
	device TEXT NOT NULL, 
	n_bytes BIGINT NOT NULL, 
	CONSTRAINT pk_device_peak PRIMARY KEY (run_id, position), 
	CONSTRAINT ck_device_peak_not_negative CHECK (n_bytes >= 0), 
	CONSTRAINT fk_device_peak_run_id_load_run FOREIGN KEY(run_id) REFERENCES load_run (run_id)
);
CREATE TABLE engine_buffer (
	run_id INTEGER NOT NULL, 
	position BIGINT NOT NULL, 
	device TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	n_bytes BIGINT NOT NULL, 
	CONSTRAINT pk_engine_buffer PRIMARY KEY (run_id, position), 
	CONSTRAINT ck_engine_buffer_not_negative CHECK (n_bytes >= 0), 
	CONSTRAINT fk_engine_buffer_run_id_load_run FOREIGN KEY(run_id) REFERENCES load_run (run_id)
);
CREATE TABLE generation_run (
	generation_id INTEGER NOT NULL, 
	run_id INTEGER NOT NULL, 
	workload_id TEXT NOT NULL, 
	repetition BIGINT NOT NULL, 
	n_prompt BIGINT NOT NULL, 
	n_gen BIGINT NOT NULL, 
	prefill_tps DOUBLE, 
	decode_tps DOUBLE, 
	ttft_s DOUBLE, 
	itl_p50_s DOUBLE, 
	itl_p95_s DOUBLE, 
	prefill_ns BIGINT, 
	ttft_ns BIGINT, 
	token_ns TEXT NOT NULL, 
	decode_ns BIGINT, 
	prefill_cpu_ns BIGINT, 
	decode_cpu_ns BIGINT, 
	ended_at DATETIME, 
	foreign_cpu_ratio DOUBLE, 
	steal_ratio DOUBLE, 
	cpu_pressure_ratio DOUBLE, 
	io_pressure_ratio DOUBLE, 
	memory_pressure_ratio DOUBLE, 
	swapped_bytes BIGINT, 
	cpu_mhz DOUBLE, 
	cpu_mhz_min DOUBLE, 
	cpu_celsius_max DOUBLE, 
	gpu_utilisation_ratio DOUBLE, 
	gpu_power_w DOUBLE, 
	gpu_energy_j DOUBLE, 
	gpu_clock_mhz DOUBLE, 
	gpu_clock_mhz_min DOUBLE, 
	gpu_celsius_max DOUBLE, 
	clock_ratio DOUBLE, 
	throttle TEXT, 
	load_1m DOUBLE, 
	on_ac BOOLEAN, 
	contamination TEXT, n_drafted BIGINT, n_accepted BIGINT, 
	CONSTRAINT pk_generation_run PRIMARY KEY (generation_id), 
	CONSTRAINT uq_generation_run_run_id_workload_id_repetition UNIQUE (run_id, workload_id, repetition), 
	CONSTRAINT ck_generation_run_not_negative CHECK (repetition >= 0 AND n_prompt >= 0 AND n_gen >= 0 AND prefill_ns >= 0 AND ttft_ns >= 0 AND decode_ns >= 0 AND prefill_cpu_ns >= 0 AND decode_cpu_ns >= 0 AND foreign_cpu_ratio >= 0 AND swapped_bytes >= 0), 
	CONSTRAINT fk_generation_run_run_id_load_run FOREIGN KEY(run_id) REFERENCES load_run (run_id), 
	CONSTRAINT fk_generation_run_workload_id_workload FOREIGN KEY(workload_id) REFERENCES workload (workload_id)
);
INSERT INTO "generation_run" VALUES(1,1,'pp64+tg4@d0',0,64,4,640.0,100.0,0.101,0.01,0.01,100000000,101000000,'[10000000,10000000,10000000,10000000]',40000000,200000000,80000000,NULL,0.01,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0.5,NULL,'',0,0);
INSERT INTO "generation_run" VALUES(2,1,'pp64+tg4@d0',1,64,4,640.0,100.0,0.101,0.01,0.01,100000000,101000000,'[10000000,10000000,10000000,10000000]',40000000,200000000,80000000,NULL,0.01,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0.5,NULL,'',0,0);
INSERT INTO "generation_run" VALUES(3,1,'pp64+tg4@d0',2,64,4,640.0,100.0,0.101,0.01,0.01,100000000,101000000,'[10000000,10000000,10000000,10000000]',40000000,200000000,80000000,NULL,0.01,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0.5,NULL,'',0,0);
CREATE TABLE load_run (
	run_id INTEGER NOT NULL, 
	study_id INTEGER, 
	machine_id TEXT NOT NULL, 
	model_id TEXT NOT NULL, 
	model_path TEXT, 
	backend TEXT NOT NULL, 
	build_id TEXT, 
	config_id TEXT NOT NULL, 
	workload_id TEXT NOT NULL, 
	purpose VARCHAR(16) NOT NULL, 
	n_reps BIGINT NOT NULL, 
	max_reps BIGINT NOT NULL, 
	sampling_s DOUBLE NOT NULL, 
	timeout_s DOUBLE NOT NULL, 
	memory_limit_bytes BIGINT, 
	planned_bytes BIGINT, 
	source TEXT NOT NULL, 
	measure_version BIGINT NOT NULL, 
	import_key TEXT, 
	import_json TEXT, 
	recommendation_id INTEGER, 
	started_at DATETIME NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	reason VARCHAR(16), 
	message TEXT NOT NULL, 
	log_excerpt TEXT NOT NULL, 
	elapsed_s DOUBLE, 
	model_s DOUBLE, 
	context_s DOUBLE, 
	first_eval_s DOUBLE, 
	cached_ratio DOUBLE, 
	load_peak_bytes BIGINT, 
	peak_anon_bytes BIGINT, 
	peak_file_bytes BIGINT, 
	peak_rss_bytes BIGINT, 
	peak_pss_bytes BIGINT, 
	peak_vram_bytes BIGINT, 
	foreign_cpu_ratio DOUBLE, 
	steal_ratio DOUBLE, 
	cpu_pressure_ratio DOUBLE, 
	io_pressure_ratio DOUBLE, 
	memory_pressure_ratio DOUBLE, 
	swapped_bytes BIGINT, 
	cpu_mhz DOUBLE, 
	cpu_mhz_min DOUBLE, 
	cpu_celsius_max DOUBLE, 
	gpu_utilisation_ratio DOUBLE, 
	gpu_power_w DOUBLE, 
	gpu_energy_j DOUBLE, 
	gpu_clock_mhz DOUBLE, 
	gpu_clock_mhz_min DOUBLE, 
	gpu_celsius_max DOUBLE, 
	clock_ratio DOUBLE, 
	throttle TEXT, 
	load_1m DOUBLE, 
	on_ac BOOLEAN, 
	contamination TEXT, 
	load_contamination TEXT, 
	layers_offloaded BIGINT, 
	layers_total BIGINT, 
	flash_attn_done BOOLEAN, 
	n_ctx_done BIGINT, 
	discarded_at DATETIME, 
	recorder_pid BIGINT NOT NULL, 
	recorder_birth TEXT, 
	CONSTRAINT pk_load_run PRIMARY KEY (run_id), 
	CONSTRAINT fk_load_run_model_id_model_path_model_location FOREIGN KEY(model_id, model_path) REFERENCES model_location (model_id, path), 
	CONSTRAINT ck_load_run_failed_for_a_reason CHECK ((state = 'failed') = (reason IS NOT NULL)), 
	CONSTRAINT ck_load_run_not_negative CHECK (n_reps >= 0 AND max_reps >= 0 AND sampling_s >= 0 AND timeout_s >= 0 AND memory_limit_bytes >= 0 AND planned_bytes >= 0 AND elapsed_s >= 0 AND model_s >= 0 AND context_s >= 0 AND first_eval_s >= 0 AND cached_ratio >= 0 AND load_peak_bytes >= 0 AND peak_anon_bytes >= 0 AND peak_file_bytes >= 0 AND peak_rss_bytes >= 0 AND peak_pss_bytes >= 0 AND peak_vram_bytes >= 0 AND foreign_cpu_ratio >= 0 AND swapped_bytes >= 0 AND layers_offloaded >= 0 AND layers_total >= 0 AND n_ctx_done >= 0), 
	CONSTRAINT fk_load_run_study_id_study FOREIGN KEY(study_id) REFERENCES study (study_id), 
	CONSTRAINT fk_load_run_machine_id_machine FOREIGN KEY(machine_id) REFERENCES machine (machine_id), 
	CONSTRAINT fk_load_run_model_id_model FOREIGN KEY(model_id) REFERENCES model (model_id), 
	CONSTRAINT fk_load_run_build_id_build FOREIGN KEY(build_id) REFERENCES build (build_id), 
	CONSTRAINT fk_load_run_config_id_config FOREIGN KEY(config_id) REFERENCES config (config_id), 
	CONSTRAINT fk_load_run_workload_id_workload FOREIGN KEY(workload_id) REFERENCES workload (workload_id), 
	CONSTRAINT ck_load_run_purpose CHECK (purpose IN ('probe', 'explore', 'confirm', 'bench', 'rebench', 'user', 'import')), 
	CONSTRAINT fk_load_run_recommendation_id_recommendation FOREIGN KEY(recommendation_id) REFERENCES recommendation (recommendation_id), 
	CONSTRAINT ck_load_run_state CHECK (state IN ('running', 'complete', 'failed')), 
	CONSTRAINT ck_load_run_reason CHECK (reason IN ('timeout', 'oom', 'load_error', 'unsupported', 'crash', 'constraint', 'incorrect', 'interrupted', 'cancelled'))
);
INSERT INTO "load_run" VALUES(1,1,'feedfacefeedface','0123456789abcdef','tiny.gguf','llama-cpp-python','3e3611b99734144d','4e889df1026d5397','pp64+tg4@d0','bench',3,8,60.0,600.0,NULL,100000000,'local',1,NULL,NULL,NULL,'2026-11-01 12:00:00.000000','complete',NULL,'','',1.5,0.2,0.02,0.03,1.0,NULL,60000000,40000000,99000000,NULL,NULL,0.01,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0.5,NULL,'','',NULL,NULL,NULL,NULL,NULL,1,NULL);
INSERT INTO "load_run" VALUES(2,1,'feedfacefeedface','0123456789abcdef','tiny.gguf','llama-cpp-python','3e3611b99734144d','4e889df1026d5397','pp64+tg4@d0','bench',3,8,60.0,600.0,NULL,NULL,'local',1,NULL,NULL,NULL,'2026-11-01 12:00:00.000000','failed','oom','out of memory','',1.5,NULL,NULL,NULL,1.0,NULL,60000000,40000000,99000000,NULL,NULL,0.01,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0.5,NULL,'','',NULL,NULL,NULL,NULL,NULL,1,NULL);
CREATE TABLE machine (
	machine_id TEXT NOT NULL, 
	cpu TEXT NOT NULL, 
	n_logical BIGINT, 
	n_physical BIGINT, 
	n_usable BIGINT, 
	isa TEXT NOT NULL, 
	ram_bytes BIGINT, 
	ram_limit_bytes BIGINT, 
	system TEXT, 
	os_version TEXT, 
	n_gpus BIGINT NOT NULL, 
	gpu_names TEXT NOT NULL, 
	facts_json TEXT NOT NULL, 
	last_seen_at DATETIME NOT NULL, 
	CONSTRAINT pk_machine PRIMARY KEY (machine_id), 
	CONSTRAINT ck_machine_not_negative CHECK (n_logical >= 0 AND n_physical >= 0 AND n_usable >= 0 AND ram_bytes >= 0 AND n_gpus >= 0)
);
INSERT INTO "machine" VALUES('feedfacefeedface','Imaginary 2-Core',2,2,2,'avx2 fma',8589934592,NULL,'Linux','Debian GNU/Linux 12',0,'','{"cache_l2_bytes":null,"cache_l3_bytes":null,"cpu":"Imaginary 2-Core","cpu_quota":null,"gpus":[],"isa":["avx2","fma"],"kernel":"6.1.0","n_logical":2,"n_numa_nodes":null,"n_performance":null,"n_physical":2,"n_usable":2,"os_version":"Debian GNU/Linux 12","ram_bytes":8589934592,"ram_limit_bytes":null,"system":"Linux"}','2026-11-01 12:00:00.000000');
CREATE TABLE model (
	model_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	architecture TEXT NOT NULL, 
	quantization TEXT NOT NULL, 
	file_bytes BIGINT NOT NULL, 
	weight_bytes BIGINT NOT NULL, 
	n_params BIGINT NOT NULL, 
	n_layers BIGINT NOT NULL, 
	n_embd BIGINT NOT NULL, 
	n_ctx_train BIGINT NOT NULL, 
	n_vocab BIGINT NOT NULL, 
	n_experts BIGINT NOT NULL, 
	facts_json TEXT NOT NULL, 
	CONSTRAINT pk_model PRIMARY KEY (model_id), 
	CONSTRAINT ck_model_not_negative CHECK (file_bytes >= 0 AND weight_bytes >= 0 AND n_params >= 0 AND n_layers >= 0 AND n_embd >= 0 AND n_ctx_train >= 0 AND n_vocab >= 0)
);
INSERT INTO "model" VALUES('0123456789abcdef','tiny','llama','Q4_1',3000000,2238080,3401728,4,256,8192,1000,0,'{"architecture":"llama","file_bytes":3000000,"header_bytes":100000,"is_recurrent":[],"is_sliding":[],"key_length":64,"key_length_sliding":0,"kv_lora_rank":0,"layer_bytes":[],"model_id":"0123456789abcdef","n_ctx_train":8192,"n_embd":256,"n_experts":0,"n_experts_used":0,"n_ff":768,"n_ff_expert":0,"n_heads":[4,4,4,4],"n_heads_kv":[2,2,2,2],"n_layers":4,"n_vocab":1000,"name":"tiny","quantization":"Q4_1","rope_dimension":0,"sliding_window":0,"ssm_conv_kernel":0,"ssm_group_count":0,"ssm_inner_size":0,"ssm_state_size":0,"state_elements":0,"tensors":[{"group":"embedding","n_bytes":272000,"n_elements":256000,"n_tensors":1,"type":"Q8_0"},{"group":"attention","n_bytes":491520,"n_elements":786432,"n_tensors":16,"type":"Q4_1"},{"group":"ffn","n_bytes":1474560,"n_elements":2359296,"n_tensors":12,"type":"Q4_1"}],"value_length":64,"value_length_sliding":0}');
CREATE TABLE model_location (
	model_id TEXT NOT NULL, 
	path TEXT NOT NULL, 
	modified_at DATETIME, 
	last_seen_at DATETIME NOT NULL, 
	mount TEXT, 
	disk_kind TEXT, 
	cached_bytes_per_s DOUBLE, 
	disk_bytes_per_s DOUBLE, 
	CONSTRAINT pk_model_location PRIMARY KEY (model_id, path), 
	CONSTRAINT fk_model_location_model_id_model FOREIGN KEY(model_id) REFERENCES model (model_id)
);
INSERT INTO "model_location" VALUES('0123456789abcdef','models/tiny.gguf',NULL,'2026-11-01 12:00:00.000000',NULL,NULL,NULL,NULL);
INSERT INTO "model_location" VALUES('0123456789abcdef','tiny.gguf',NULL,'2026-11-01 12:00:00.000000',NULL,NULL,NULL,NULL);
CREATE TABLE model_tensor (
	model_id TEXT NOT NULL, 
	tensor_group TEXT NOT NULL, 
	tensor_type TEXT NOT NULL, 
	n_tensors BIGINT NOT NULL, 
	n_elements BIGINT NOT NULL, 
	n_bytes BIGINT NOT NULL, 
	CONSTRAINT pk_model_tensor PRIMARY KEY (model_id, tensor_group, tensor_type), 
	CONSTRAINT ck_model_tensor_not_negative CHECK (n_tensors >= 0 AND n_elements >= 0 AND n_bytes >= 0), 
	CONSTRAINT fk_model_tensor_model_id_model FOREIGN KEY(model_id) REFERENCES model (model_id)
);
INSERT INTO "model_tensor" VALUES('0123456789abcdef','embedding','Q8_0',1,256000,272000);
INSERT INTO "model_tensor" VALUES('0123456789abcdef','attention','Q4_1',16,786432,491520);
INSERT INTO "model_tensor" VALUES('0123456789abcdef','ffn','Q4_1',12,2359296,1474560);
CREATE TABLE prediction (
	run_id INTEGER NOT NULL, 
	target VARCHAR(32) NOT NULL, 
	q05 DOUBLE, 
	q50 DOUBLE, 
	q95 DOUBLE, 
	p_success DOUBLE, 
	evidence VARCHAR(16) NOT NULL, 
	n_runs BIGINT NOT NULL, 
	predictor_id INTEGER, 
	made_at DATETIME NOT NULL, 
	CONSTRAINT pk_prediction PRIMARY KEY (run_id, target), 
	CONSTRAINT ck_prediction_probability CHECK (p_success BETWEEN 0 AND 1), 
	CONSTRAINT ck_prediction_success CHECK ((target = 'success') = (p_success IS NOT NULL)), 
	CONSTRAINT ck_prediction_interval CHECK ((p_success IS NULL) = (q05 IS NOT NULL AND q50 IS NOT NULL AND q95 IS NOT NULL)), 
	CONSTRAINT fk_prediction_run_id_load_run FOREIGN KEY(run_id) REFERENCES load_run (run_id), 
	CONSTRAINT ck_prediction_target CHECK (target IN ('load_s', 'peak_memory_bytes', 'prefill_tps', 'decode_tps', 'ttft_s', 'success')), 
	CONSTRAINT ck_prediction_evidence CHECK (evidence IN ('measured', 'calibrated', 'transferred', 'physics')), 
	CONSTRAINT fk_prediction_predictor_id_predictor FOREIGN KEY(predictor_id) REFERENCES predictor (predictor_id)
);
INSERT INTO "prediction" VALUES(1,'load_s',0.1,0.2,0.4,NULL,'physics',0,NULL,'2026-11-01 12:00:00.000000');
INSERT INTO "prediction" VALUES(1,'peak_memory_bytes',90000000.0,100000000.0,110000000.0,NULL,'physics',0,NULL,'2026-11-01 12:00:00.000000');
INSERT INTO "prediction" VALUES(1,'prefill_tps',500.0,600.0,700.0,NULL,'physics',0,NULL,'2026-11-01 12:00:00.000000');
INSERT INTO "prediction" VALUES(1,'decode_tps',80.0,100.0,120.0,NULL,'physics',0,NULL,'2026-11-01 12:00:00.000000');
INSERT INTO "prediction" VALUES(1,'ttft_s',0.05,0.1,0.2,NULL,'physics',0,NULL,'2026-11-01 12:00:00.000000');
INSERT INTO "prediction" VALUES(1,'success',NULL,NULL,NULL,0.97,'physics',0,NULL,'2026-11-01 12:00:00.000000');
CREATE TABLE predictor (
	predictor_id INTEGER NOT NULL, 
	api TEXT NOT NULL, 
	versions TEXT NOT NULL, 
	fingerprint TEXT NOT NULL, 
	n_runs BIGINT NOT NULL, 
	promoted BOOLEAN NOT NULL, 
	reason TEXT NOT NULL, 
	errors_json TEXT NOT NULL, 
	fitted_at DATETIME NOT NULL, 
	elapsed_s DOUBLE NOT NULL, 
	state BLOB, 
	CONSTRAINT pk_predictor PRIMARY KEY (predictor_id), 
	CONSTRAINT ck_predictor_not_negative CHECK (n_runs >= 0 AND elapsed_s >= 0)
);
CREATE TABLE probe (
	probe_id INTEGER NOT NULL, 
	machine_id TEXT NOT NULL, 
	measured_at DATETIME NOT NULL, 
	elapsed_s DOUBLE NOT NULL, 
	CONSTRAINT pk_probe PRIMARY KEY (probe_id), 
	CONSTRAINT ck_probe_not_negative CHECK (elapsed_s >= 0), 
	CONSTRAINT fk_probe_machine_id_machine FOREIGN KEY(machine_id) REFERENCES machine (machine_id)
);
INSERT INTO "probe" VALUES(1,'feedfacefeedface','2026-11-01 12:00:00.000000',2.0);
CREATE TABLE probe_point (
	probe_id INTEGER NOT NULL, 
	n_threads BIGINT NOT NULL, 
	read_bytes_per_s DOUBLE NOT NULL, 
	read_spread_ratio DOUBLE NOT NULL, 
	flops_per_s DOUBLE NOT NULL, 
	flops_spread_ratio DOUBLE NOT NULL, 
	CONSTRAINT pk_probe_point PRIMARY KEY (probe_id, n_threads), 
	CONSTRAINT ck_probe_point_not_negative CHECK (n_threads >= 0 AND read_bytes_per_s >= 0 AND read_spread_ratio >= 0 AND flops_per_s >= 0 AND flops_spread_ratio >= 0), 
	CONSTRAINT fk_probe_point_probe_id_probe FOREIGN KEY(probe_id) REFERENCES probe (probe_id)
);
INSERT INTO "probe_point" VALUES(1,1,10000000000.0,0.02,50000000000.0,0.02);
INSERT INTO "probe_point" VALUES(1,2,18000000000.0,0.03,95000000000.0,0.03);
CREATE TABLE quality (
	quality_id INTEGER NOT NULL, 
	machine_id TEXT NOT NULL, 
	model_id TEXT NOT NULL, 
	build_id TEXT NOT NULL, 
	config_id TEXT NOT NULL, 
	reference_config_id TEXT NOT NULL, 
	text_id TEXT NOT NULL, 
	kl_mean DOUBLE NOT NULL, 
	kl_p99 DOUBLE NOT NULL, 
	top1_agreement DOUBLE NOT NULL, 
	n_tokens BIGINT NOT NULL, 
	measured_at DATETIME NOT NULL, 
	CONSTRAINT pk_quality PRIMARY KEY (quality_id), 
	CONSTRAINT ck_quality_agreement CHECK (top1_agreement BETWEEN 0 AND 1), 
	CONSTRAINT ck_quality_not_negative CHECK (kl_mean >= 0 AND kl_p99 >= 0 AND n_tokens >= 0), 
	CONSTRAINT fk_quality_machine_id_machine FOREIGN KEY(machine_id) REFERENCES machine (machine_id), 
	CONSTRAINT fk_quality_model_id_model FOREIGN KEY(model_id) REFERENCES model (model_id), 
	CONSTRAINT fk_quality_build_id_build FOREIGN KEY(build_id) REFERENCES build (build_id), 
	CONSTRAINT fk_quality_config_id_config FOREIGN KEY(config_id) REFERENCES config (config_id), 
	CONSTRAINT fk_quality_reference_config_id_config FOREIGN KEY(reference_config_id) REFERENCES config (config_id)
);
INSERT INTO "quality" VALUES(1,'feedfacefeedface','0123456789abcdef','3e3611b99734144d','3a33c93817fdfc85','2d56d2d81549263a','e286222c229ec73b',0.004,0.016,0.97,800,'2026-11-01 12:00:00.000000');
CREATE TABLE recommendation (
	recommendation_id INTEGER NOT NULL, 
	study_id INTEGER, 
	machine_id TEXT NOT NULL, 
	model_id TEXT NOT NULL, 
	backend TEXT NOT NULL, 
	config_id TEXT NOT NULL, 
	target VARCHAR(16) NOT NULL, 
	workload_id TEXT NOT NULL, 
	confidence DOUBLE NOT NULL, 
	reasons TEXT NOT NULL, 
	speedup DOUBLE, 
	cached BOOLEAN, 
	made_at DATETIME NOT NULL, 
	CONSTRAINT pk_recommendation PRIMARY KEY (recommendation_id), 
	CONSTRAINT ck_recommendation_confidence CHECK (confidence BETWEEN 0 AND 1), 
	CONSTRAINT ck_recommendation_not_negative CHECK (speedup >= 0), 
	CONSTRAINT fk_recommendation_study_id_study FOREIGN KEY(study_id) REFERENCES study (study_id), 
	CONSTRAINT fk_recommendation_machine_id_machine FOREIGN KEY(machine_id) REFERENCES machine (machine_id), 
	CONSTRAINT fk_recommendation_model_id_model FOREIGN KEY(model_id) REFERENCES model (model_id), 
	CONSTRAINT fk_recommendation_config_id_config FOREIGN KEY(config_id) REFERENCES config (config_id), 
	CONSTRAINT ck_recommendation_target CHECK (target IN ('speed', 'balanced', 'quality')), 
	CONSTRAINT fk_recommendation_workload_id_workload FOREIGN KEY(workload_id) REFERENCES workload (workload_id)
);
INSERT INTO "recommendation" VALUES(1,1,'feedfacefeedface','0123456789abcdef','llama-cpp-python','4e889df1026d5397','speed','pp64+tg4@d0',0.8,'["measured","fits"]',1.4,NULL,'2026-11-01 12:00:00.000000');
CREATE TABLE study (
	study_id INTEGER NOT NULL, 
	machine_id TEXT NOT NULL, 
	model_id TEXT NOT NULL, 
	backend TEXT NOT NULL, 
	target VARCHAR(16) NOT NULL, 
	hardware VARCHAR(16) NOT NULL, 
	workload_id TEXT NOT NULL, 
	default_config_id TEXT NOT NULL, 
	max_trials BIGINT NOT NULL, 
	time_limit_s DOUBLE NOT NULL, 
	seed BIGINT NOT NULL, 
	question_id TEXT NOT NULL, 
	started_at DATETIME NOT NULL, 
	finished_at DATETIME, 
	state VARCHAR(16) NOT NULL, 
	note TEXT NOT NULL, 
	recorder_pid BIGINT NOT NULL, 
	recorder_birth TEXT, 
	CONSTRAINT pk_study PRIMARY KEY (study_id), 
	CONSTRAINT ck_study_not_negative CHECK (max_trials >= 0 AND time_limit_s >= 0), 
	CONSTRAINT fk_study_machine_id_machine FOREIGN KEY(machine_id) REFERENCES machine (machine_id), 
	CONSTRAINT fk_study_model_id_model FOREIGN KEY(model_id) REFERENCES model (model_id), 
	CONSTRAINT ck_study_target CHECK (target IN ('speed', 'balanced', 'quality')), 
	CONSTRAINT ck_study_hardware CHECK (hardware IN ('auto', 'gpu', 'cpu')), 
	CONSTRAINT fk_study_workload_id_workload FOREIGN KEY(workload_id) REFERENCES workload (workload_id), 
	CONSTRAINT fk_study_default_config_id_config FOREIGN KEY(default_config_id) REFERENCES config (config_id), 
	CONSTRAINT ck_study_state CHECK (state IN ('running', 'complete', 'stopped', 'failed'))
);
INSERT INTO "study" VALUES(1,'feedfacefeedface','0123456789abcdef','llama-cpp-python','speed','cpu','pp64+tg4@d0','4e889df1026d5397',20,300.0,7,'','2026-11-01 12:00:00.000000','2026-11-01 12:00:00.000000','complete','done',1,NULL);
CREATE TABLE workload (
	workload_id TEXT NOT NULL, 
	n_prompt BIGINT NOT NULL, 
	n_gen BIGINT NOT NULL, 
	n_depth BIGINT NOT NULL, 
	n_parallel BIGINT NOT NULL, 
	CONSTRAINT pk_workload PRIMARY KEY (workload_id), 
	CONSTRAINT uq_workload_n_prompt_n_gen_n_depth_n_parallel UNIQUE (n_prompt, n_gen, n_depth, n_parallel), 
	CONSTRAINT ck_workload_not_negative CHECK (n_prompt >= 0 AND n_gen >= 0 AND n_depth >= 0 AND n_parallel >= 0)
);
INSERT INTO "workload" VALUES('pp64+tg4@d0',64,4,0,1);
CREATE INDEX ix_probe_machine_id_measured_at ON probe (machine_id, measured_at);
CREATE INDEX ix_study_machine_id_model_id ON study (machine_id, model_id);
CREATE INDEX ix_recommendation_machine_id_model_id ON recommendation (machine_id, model_id);
CREATE INDEX ix_load_run_machine_id_backend ON load_run (machine_id, backend);
CREATE INDEX ix_load_run_model_id_started_at ON load_run (model_id, started_at);
CREATE INDEX ix_load_run_state ON load_run (state);
CREATE UNIQUE INDEX ix_load_run_import_key ON load_run (import_key);
CREATE INDEX ix_load_run_study_id ON load_run (study_id);
CREATE INDEX ix_quality_model_id_measured_at ON quality (model_id, measured_at);
CREATE VIEW prediction_outcome AS
WITH near AS (
    SELECT run_id, prefill_tps, decode_tps, ttft_s,
        CASE WHEN coalesce(generation_run.contamination, '') = '' THEN 0 ELSE 1 END AS is_spoilt
    FROM generation_run JOIN load_run USING (run_id)
    JOIN workload AS done ON done.workload_id = generation_run.workload_id
    JOIN workload AS asked ON asked.workload_id = load_run.workload_id
    WHERE done.workload_id = asked.workload_id OR (purpose = 'user'
        AND 10 * done.n_prompt BETWEEN 7 * asked.n_prompt AND 14 * asked.n_prompt
        AND 10 * done.n_gen BETWEEN 7 * asked.n_gen AND 14 * asked.n_gen
        AND 10 * done.n_depth BETWEEN 7 * asked.n_depth AND 14 * asked.n_depth + 320
        AND done.n_parallel = asked.n_parallel)
), sample AS (
    SELECT run_id, 'prefill_tps' AS target, prefill_tps AS value, is_spoilt FROM near
    UNION ALL SELECT run_id, 'decode_tps', decode_tps, is_spoilt FROM near
    UNION ALL SELECT run_id, 'ttft_s', ttft_s, is_spoilt FROM near
), kept AS (
    SELECT run_id, target, value, is_spoilt,
        dense_rank() OVER (PARTITION BY run_id ORDER BY is_spoilt) AS choice
    FROM sample
), ranked AS (
    SELECT run_id, target, value, is_spoilt,
        row_number() OVER (PARTITION BY run_id, target ORDER BY value) AS place,
        count(*) OVER (PARTITION BY run_id, target) AS n
    FROM kept WHERE choice = 1 AND value IS NOT NULL
), outcome AS (
    SELECT run_id, target, avg(value) AS measured, max(is_spoilt) AS is_spoilt
    FROM ranked WHERE place IN ((n + 1) / 2, (n + 2) / 2)
    GROUP BY run_id, target
    UNION ALL SELECT run_id, 'load_s', model_s + context_s + first_eval_s, 0 FROM load_run
    UNION ALL SELECT run_id, 'peak_memory_bytes',
        CASE WHEN purpose <> 'user' OR state = 'complete' THEN peak_rss_bytes END, 0 FROM load_run
    UNION ALL SELECT run_id, 'success', CASE WHEN reason IS NULL THEN 1.0
        WHEN reason NOT IN ('cancelled', 'interrupted') THEN 0.0
        WHEN purpose = 'user' AND model_s IS NOT NULL THEN 1.0 END, 0
    FROM load_run
)
SELECT run_id, machine_id, model_id, load_run.backend, purpose, made_at, target, evidence,
    prediction.n_runs, predictor_id, q05, q50, q95, p_success, measured,
    abs(q50 / measured - 1) AS ape,
    measured BETWEEN q05 AND q95 AS covered,
    (is_spoilt = 0 AND coalesce(CASE target WHEN 'load_s' THEN load_contamination
        WHEN 'peak_memory_bytes' THEN '' WHEN 'success' THEN ''
        ELSE load_run.contamination END, '') = '' AND discarded_at IS NULL) AS clean
FROM prediction JOIN load_run USING (run_id) JOIN outcome USING (run_id, target)
WHERE measured IS NOT NULL AND elapsed_s IS NOT NULL;
COMMIT;
